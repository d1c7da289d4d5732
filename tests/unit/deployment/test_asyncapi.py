"""docs/reference/asyncapi.yaml describes the messages as the code reads and writes them.

The seams are the database (`World`, for frames) and Kafka's messages. The document's structure is
checked here as far as this project uses it; `@asyncapi/specs` on npm has the whole JSON Schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest

from device.retransmission import Ack
from doorstep.fix import (
    ID_PATTERN,
    MAX_FIXES,
    Fix,
    Refused,
    decode_position,
    encode_fix,
    encode_position,
    encode_void,
)
from doorstep.fix.strict import OPTIONAL, RANGES
from doorstep.kafka.access import KafkaAccess
from doorstep.kafka.topic_specs import TOPICS
from doorstep.mqtt_topics import (
    ACK,
    COMMAND,
    POSITION,
    SERIES_PREFIX,
    STATUS,
    phone_command_topic_of,
    phone_topic_of,
    topic_of,
)
from doorstep.sampling import Mode, SamplingPolicy, decode_command, encode_command
from doorstep.series import MAX_POINTS, NAME_PATTERN, Point, decode_points, point_members
from doorstep.store.records import DeadLetter, Watermark
from driver_events.acks import MAX_MISSING, encode_watermark
from driver_events.batch import Record, classify, decode_batch
from driver_events.positions import pack_positions
from tests.unit.deployment.asyncapi_document import (
    DOCUMENT,
    MESSAGES,
    ROOT,
    SCHEMAS,
    KafkaMessage,
    assert_valid,
    channels_of,
    examples_of,
    fields_of,
    payloads_of,
    titles_of,
    validator,
)
from tracking_api.live.feed import Feed

# ---- the document ------------------------------------------------------------------------------


def refs_in(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from refs_in(child)
    elif isinstance(node, list):
        for child in node:
            yield from refs_in(child)


def test_document__references__all_lead_somewhere() -> None:
    for ref in set(refs_in(DOCUMENT)):
        node: Any = DOCUMENT
        for step in ref.removeprefix("#/").split("/"):
            assert step in node, ref
            node = node[step]


def test_document__components__are_all_used() -> None:
    used = set(refs_in(DOCUMENT))
    declared = {f"#/components/messages/{name}" for name in MESSAGES}
    assert declared <= used
    assert {f"#/components/schemas/{name}" for name in SCHEMAS} <= used


def test_document__channels__have_one_operation_each() -> None:
    targets = [one["channel"]["$ref"] for one in DOCUMENT["operations"].values()]
    assert sorted(targets) == sorted(f"#/channels/{name}" for name in DOCUMENT["channels"])
    assert {one["action"] for one in DOCUMENT["operations"].values()} == {"send", "receive"}


@pytest.mark.parametrize("channel", DOCUMENT["channels"])
def test_document__parameters__are_those_of_the_address(channel: str) -> None:
    described = DOCUMENT["channels"][channel]
    named = set(re.findall(r"\{(\w+)\}", described["address"]))
    assert set(described.get("parameters", {})) == named


@pytest.mark.parametrize("message", MESSAGES)
def test_document__examples__are_valid_against_their_schema(message: str) -> None:
    payload = MESSAGES[message]["payload"]
    examples = list(examples_of(message))
    assert examples
    if "$ref" in payload:
        for example in examples:
            assert_valid(payload["$ref"].rpartition("/")[2], example)


def test_document__version__is_the_changelogs_newest() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = next(line for line in changelog.splitlines() if line.startswith("## "))
    assert newest == f"## {DOCUMENT['info']['version']}"


# ---- MQTT --------------------------------------------------------------------------------------


def test_mqtt__topics__are_the_code_s_own() -> None:
    kinds = (POSITION, STATUS, ACK, COMMAND)
    topics = {topic_of("{driver_id}", kind) for kind in kinds}
    topics |= {SERIES_PREFIX + "{source_id}/{measure}", phone_topic_of("{driver_id}")}
    topics.add(phone_command_topic_of("{driver_id}"))
    assert set(channels_of("mqtt")) == topics


def test_mqtt__ids__have_the_code_s_pattern() -> None:
    parameters = DOCUMENT["components"]["parameters"]
    assert {parameters[name]["x-pattern"] for name in ("driver_id", "source_id", "measure")} == {
        ID_PATTERN
    }
    assert SCHEMAS["Id"]["pattern"] == f"^{ID_PATTERN}$"
    name = SCHEMAS["SeriesPoints"]["properties"]["name"]
    assert name["pattern"] == f"^{NAME_PATTERN}$"


def test_fix__fields_and_ranges__are_the_struct_s() -> None:
    fields = {one.name: one for one in msgspec.structs.fields(Fix)}
    del fields["ignored"]  # not on the wire
    assert fields_of("Fix") == set(fields)
    assert set(SCHEMAS["Fix"]["required"]) == set(fields) - set(OPTIONAL)
    for name, (least, most) in RANGES.items():
        schema = SCHEMAS["Fix"]["properties"][name]
        schema = schema["anyOf"][0] if name in OPTIONAL else schema
        assert (schema["minimum"], schema["maximum"]) == (least, most), name
    assert SCHEMAS["Positions"]["oneOf"][2]["maxItems"] == MAX_FIXES


def test_fix__examples__are_decoded_with_every_field() -> None:
    decoded = [one for payload in payloads_of("positions") for one in decode_position(payload)]
    fixes = [one for one in decoded if isinstance(one, Fix)]
    assert len(fixes) == 3
    assert all(getattr(fixes[0], field) is not None for field in fields_of("Fix"))
    refused = [one for one in decoded if isinstance(one, Refused)]
    assert [one.reason for one in refused] == ["void"]


def test_fix__encoded__is_valid() -> None:
    fix = decode_position(payloads_of("positions")[0])[0]
    assert isinstance(fix, Fix)
    assert_valid("Fix", json.loads(encode_fix(fix)))
    assert_valid("Positions", json.loads(encode_position([fix, fix])))
    assert_valid("Void", json.loads(encode_void("b", 7)))


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("beyond", [False, True])
def test_fix__at_a_range_s_end_and_beyond__decoder_and_schema_agree(
    name: str, *, beyond: bool
) -> None:
    fix = next(examples_of("positions"))
    value = RANGES[name][1] + (1 if beyond else 0)
    payload = {**fix, name: value}
    decoded = decode_position(json.dumps(payload).encode())[0]
    is_fix = not beyond or name in OPTIONAL
    assert isinstance(decoded, Fix) is is_fix
    assert validator("Positions").is_valid(payload) is is_fix
    if isinstance(decoded, Fix):
        assert decoded.ignored == ((name,) if beyond else ())


def test_ack__fields__are_the_device_s() -> None:
    assert fields_of("Ack") == {one.name for one in msgspec.structs.fields(Ack)}
    assert SCHEMAS["Ack"]["properties"]["missing"]["maxItems"] == MAX_MISSING


def test_ack__encoded__is_valid_and_read_by_the_device() -> None:
    written = encode_watermark(Watermark("anna", "b", 41, [(7, 7), (12, 19)]))
    assert_valid("Ack", json.loads(written))
    decode = msgspec.json.Decoder(Ack).decode
    assert decode(written) == Ack("b", 41, [(7, 7), (12, 19)])
    written = encode_watermark(Watermark("anna", "b", 41, [(7, 7)], hold_s=400, held=12))
    assert_valid("Ack", json.loads(written))
    assert decode(written) == Ack("b", 41, [(7, 7)], 400.0, 12)
    for payload in payloads_of("ack"):
        assert decode(payload).seq == 41


def test_command__fields_defaults_and_ranges__are_the_struct_s() -> None:
    properties = SCHEMAS["ReportCommand"]["properties"]
    fields = {one.name: one for one in msgspec.structs.fields(SamplingPolicy)}
    assert set(properties) == {"command", *fields}
    assert {name: properties[name]["default"] for name in fields} == {
        name: field.default for name, field in fields.items()
    }
    assert properties["mode"]["enum"] == list(get_args(Mode))
    for name in set(fields) - {"mode"}:
        (meta,) = fields[name].type.__metadata__
        assert (properties[name]["minimum"], properties[name]["maximum"]) == (meta.ge, meta.le)


def test_command__encoded_and_decoded__is_the_same() -> None:
    for payload in payloads_of("reportCommand"):
        report = decode_command(payload)
        assert report.mode == "dead_reckoning"
        assert_valid("ReportCommand", json.loads(encode_command(report)))


def test_points__fields__are_the_code_s() -> None:
    assert fields_of("Point") == set(Point._fields)
    assert SCHEMAS["Points"]["oneOf"][1]["maxItems"] == MAX_POINTS


def test_points__examples__are_decoded_and_written_again() -> None:
    for payload in payloads_of("points"):
        for point in decode_points(payload):
            assert isinstance(point, Point)
            assert_valid("Point", point_members(*point))


# ---- Kafka -------------------------------------------------------------------------------------


def test_kafka__topics__have_the_specified_partitions_and_settings() -> None:
    described = {}
    for name, channel in channels_of("kafka").items():
        binding = channel["bindings"]["kafka"]
        settings = {
            key: value[0] if isinstance(value, list) else str(value)
            for key, value in binding["topicConfiguration"].items()
        }
        described[name] = (binding["partitions"], settings)
    assert described == {topic.name: (topic.partitions, topic.config()) for topic in TOPICS}


def test_order_update__fields__are_those_that_the_trigger_writes() -> None:
    schema = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "sql" / "schema").glob("*.sql"))
    )
    of_event, of_notice = (
        set(re.findall(r"'(\w+)', \w+", schema.split(f"CREATE FUNCTION {one}")[-1].split("$$;")[0]))
        for one in ("order_event__announce", "order_notice__announce")
    )
    assert set(SCHEMAS["OrderUpdate"]["required"]) == of_event
    assert fields_of("OrderUpdate") == of_notice == of_event | {"notice"}


def test_live_feed__examples__are_read() -> None:
    feed = Feed(
        KafkaAccess(""),
        updates_topic="u",
        positions_topic="p",
        on_batch=print,
        watched_drivers={"anna", "ben"},
    )
    records = [KafkaMessage("u", one) for one in payloads_of("orderUpdate")]
    records += [KafkaMessage("p", one) for one in payloads_of("packedPositions")]
    batch = feed.decode(records)  # type: ignore[arg-type]
    assert list(batch.orders.values()) == [4]
    assert batch.moved_drivers == {"anna", "ben"}


def test_packed_positions__written_from_a_batch__are_valid() -> None:
    fix = payloads_of("positions")[0]
    batch = decode_batch([Record(b"anna", fix, 1_795_262_584_391)], 10)
    (packed,) = pack_positions(classify(batch, []).positions())
    assert_valid("PackedPositions", json.loads(packed))
    row = dict(zip(titles_of("PackedPosition"), json.loads(packed)["positions"][0], strict=True))
    assert row.items() >= {"driver_id": "anna", "lon_deg": 11.2486, "speed_mps": 5.2}.items()


def test_dead_letter__headers__are_the_code_s() -> None:
    assert fields_of("DeadLetterHeaders") == set(DeadLetter.__slots__) - {"payload"}
    for example in MESSAGES["deadLetter"]["examples"]:
        assert_valid("DeadLetterHeaders", example["headers"])
