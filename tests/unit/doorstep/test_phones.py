"""The formats of phone apps. Pure: no seam is replaced."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import pytest

from doorstep.errors import MalformedFix
from doorstep.fix import Fix, Refused
from doorstep.phones import (
    Ignored,
    decode_overland,
    decode_owntracks,
    decode_traccar,
    keepable,
)
from doorstep.phones.letters import decode_letter
from doorstep.phones.links import Phone, owntracks_link
from doorstep.settings import MqttBroker
from doorstep.store.records import Outcome
from driver_events.batch import Record, classify
from driver_events.phone_batch import decode_phones

AT = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
TST = 1_790_000_000
PLACE = (43.77, 11.25)


def owntracks(**members: object) -> bytes:
    return json.dumps(
        {"_type": "location", "tst": TST, "lat": 43.77, "lon": 11.25} | members
    ).encode()


def traccar(**members: object) -> Fix | Refused | Ignored:
    pairs = {"id": "t", "timestamp": TST, "lat": 43.77, "lon": 11.25} | members
    query = urlencode({key: value for key, value in pairs.items() if value is not None}).encode()
    token, [entry] = decode_traccar(query, b"")
    assert token == "t"
    assert decode_traccar(b"", query) == (token, [entry])
    return entry.found


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"tst": None}, "wrong_type"),
        ({"tst": "1790000000"}, "wrong_type"),
        ({"tst": True}, "wrong_type"),
        ({"tst": 10**13}, "bad_instant"),
        ({"tst": -1}, "bad_instant"),
        ({"lat": 91}, "latitude_out_of_range"),
        ({"lon": -181}, "longitude_out_of_range"),
        ({"lat": "43.7"}, "wrong_type"),
        ({"_type": "encrypted"}, "encrypted"),
    ],
)
def test_decode_owntracks__bad_place_or_instant__is_refused(
    members: dict[str, object], reason: str
) -> None:
    with pytest.raises(MalformedFix) as caught:
        decode_owntracks(owntracks(**members))
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["tst", "lat", "lon", "_type"])
def test_decode_owntracks__without_a_required_field__is_refused(name: str) -> None:
    message = json.loads(owntracks())
    del message[name]
    with pytest.raises(MalformedFix) as caught:
        decode_owntracks(json.dumps(message).encode())
    assert caught.value.reason == "missing_field"


@pytest.mark.parametrize(
    ("members", "ignored"),
    [
        ({"acc": 0}, ("accuracy_m",)),
        (
            {"acc": -1, "vel": -1, "cog": -1, "batt": -1},
            ("accuracy_m", "speed_mps", "heading_deg", "battery"),
        ),
        ({"batt": 187, "vel": 1801, "alt": None}, ("speed_mps", "altitude_m", "battery")),
        ({"vel": "fast", "acc": True}, ("accuracy_m", "speed_mps")),
    ],
)
def test_decode_owntracks__unusable_optional_value__keeps_the_position(
    members: dict[str, object], ignored: tuple[str, ...]
) -> None:
    assert decode_owntracks(owntracks(**members)) == Fix(None, None, AT, *PLACE, ignored=ignored)


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (str(TST), AT),
        (f"{TST}000", AT),
        (f"{TST}.5", AT.replace(microsecond=500_000)),
        ("2026-09-21T14:13:20Z", AT),
        ("2026-09-21T16:13:20+0200", AT),
    ],
)
def test_decode_traccar__seconds_milliseconds_or_iso__are_read(
    timestamp: str, expected: datetime
) -> None:
    found = traccar(timestamp=timestamp)
    assert isinstance(found, Fix)
    assert found.fix_at == expected


def test_decode_traccar__plus_of_a_zone_not_escaped__is_read() -> None:
    _, [entry] = decode_traccar(b"id=t&lat=1&lon=2&timestamp=2026-09-21T16:13:20+02:00", b"")
    assert isinstance(entry.found, Fix)
    assert entry.found.fix_at == AT


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"lat": None, "lon": None, "location": "43.77,11.25"}, Fix(None, None, AT, *PLACE)),
        ({"heading": "360"}, Fix(None, None, AT, *PLACE, heading_deg=0.0)),
        ({"lat": None, "lon": None}, Ignored("no_place")),
        ({"valid": "false"}, Ignored("invalid")),
    ],
)
def test_decode_traccar__what_the_server_accepts_too__is_read(
    members: dict[str, object], expected: object
) -> None:
    assert traccar(**members) == expected


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"lat": None}, "missing_field"),
        ({"timestamp": None}, "missing_field"),
        ({"timestamp": "yesterday"}, "bad_instant"),
        ({"timestamp": "nan"}, "bad_instant"),
        ({"timestamp": "inf"}, "bad_instant"),
        ({"timestamp": "-inf"}, "bad_instant"),
        ({"lat": "nan"}, "wrong_type"),
        ({"lat": "143"}, "latitude_out_of_range"),
        ({"location": "1", "lat": None, "lon": None}, "missing_field"),
    ],
)
def test_decode_traccar__bad_place_or_instant__is_refused(
    members: dict[str, object], reason: str
) -> None:
    found = traccar(**members)
    assert isinstance(found, Refused)
    assert found.reason == reason


def test_decode_overland__entries__are_judged_one_by_one() -> None:
    good = {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [11.25, 43.77]},
        "properties": {"timestamp": "2026-09-21T14:13:20Z"},
    }
    body = {
        "locations": [good, 7, {**good, "geometry": None}, {**good, "properties": {"action": "x"}}]
    }
    entries = decode_overland(json.dumps(body).encode())
    assert entries[0].found == Fix(None, None, AT, *PLACE)
    assert [type(one.found) for one in entries[1:]] == [Refused, Refused, Ignored]
    assert decode_letter("/overland", entries[0].payload) == [entries[0].found]


def test_decode_overland__number_is_none_of_strict_json__the_letter_says_which() -> None:
    [entry] = decode_overland(b'{"locations": [{"properties": {"speed": 1e999}}]}')
    assert isinstance(entry.found, Refused)
    assert json.loads(entry.payload) == {"locations": [{"properties": {"speed": "1e999"}}]}


def test_decode_letter__of_each_app__is_decoded_as_before() -> None:
    fix = Fix(None, None, AT, *PLACE)
    assert decode_letter("owntracks/d1/phone", owntracks()) == [fix]
    assert decode_letter("/owntracks", owntracks()) == [fix]
    body = {
        "location": {
            "timestamp": "2026-09-21T14:13:20Z",
            "coords": {"latitude": 43.77, "longitude": 11.25},
        },
        "device_id": "t",
    }
    token, [entry] = decode_traccar(b"", json.dumps(body).encode())
    assert token == "t"
    assert b'"t"' not in entry.payload
    assert decode_letter("/osmand", entry.payload) == [fix]
    assert decode_letter("doorstep/v1/drivers/d1/position", b"{}") is None


@pytest.mark.parametrize(("payload", "kept"), [(b"{", b"{"), (b'{"PassWord":', b"")])
def test_keepable__may_hold_a_password__keeps_nothing(payload: bytes, kept: bytes) -> None:
    assert keepable(payload) == kept


def test_decode_phones__good_other_and_bad_records__do_not_affect_each_other() -> None:
    records = [
        Record(b"d1", owntracks(), 1_790_000_001_000),
        Record(b"d1", b'{"_type":"lwt"}', 1_790_000_001_000),
        Record(b"d1", b"", 1_790_000_001_000),
        Record(b"d/1", owntracks(), 1_790_000_001_000),
        Record(b"d2", owntracks(lat=91), 1_790_000_001_000),
        Record(b"d2", owntracks(batt=50), 1_790_000_001_000),
    ]
    decoded = decode_phones(records)
    assert set(decoded.heard) == {"d1", "d2"}
    assert decoded.ignored == {"lwt": 1, "empty": 1}
    assert [row[1] for row in decoded.batch.rows] == ["d1", "d2"]
    result = classify(decoded.batch, [Outcome(1, "conflict", None)])
    assert result.outcomes == {"committed": 1, "duplicate": 1, "malformed": 2}
    assert [(one.reason, one.topic) for one in result.dead_letters] == [
        ("bad_id", "owntracks//phone"),
        ("latitude_out_of_range", "owntracks/d2/phone"),
    ]


PHONE = Phone("anna", "phn_a+b", "https://x:8443/driver-api", MqttBroker("x", 8883, tls=True))


def test_owntracks_link__opened_by_android__is_the_configuration() -> None:
    link = owntracks_link(PHONE.owntracks_mqtt())
    assert "+" not in link
    inline = unquote(link.removeprefix("owntracks:///config?inline="))
    found = json.loads(base64.b64decode(inline))
    assert (found["username"], found["password"]) == ("anna.phone", "phn_a+b")
    assert (found["pubTopicBase"], found["subTopic"]) == (
        "owntracks/anna/phone",
        "owntracks/anna/phone/cmd",
    )
    assert (found["pubRetain"], found["tls"], found["port"]) == (False, True, 8883)
    assert PHONE.owntracks_http()["url"] == "https://x:8443/driver-api/owntracks"


def test_traccar_link__opened__has_the_token_and_the_address() -> None:
    found = parse_qs(urlsplit(PHONE.traccar_link()).query)
    assert (found["id"], found["url"]) == (["phn_a+b"], ["https://x:8443/driver-api/osmand"])
