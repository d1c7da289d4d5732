"""Bad input over MQTT: phone -> Mosquitto -> bridge -> Kafka -> driver_events -> dead letters.

The classes are those of the fault list: 1-8 and 17-24, and the rest that a payload can hold.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from confluent_kafka import Message

from doorstep.store import admin
from tests.database import Database, cloned_database
from tests.factories import AWAY
from tests.integration.pipe_servers import Kafka, Mosquitto, wait_until
from tests.integration.pipe_services import (
    Phone,
    Service,
    bridge_on,
    driver_events_on,
    read_topic,
)


@dataclass
class Pipe:
    """The data plane, shared by the tests of this module; each test is another driver."""

    mosquitto: Mosquitto
    kafka: Kafka
    database: Database
    driver_events: Service


@pytest.fixture(scope="module")
def pipe(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Pipe]:
    folder = tmp_path_factory.mktemp("pipe")
    kafka, mosquitto = Kafka(folder / "kafka"), Mosquitto(folder / "mosquitto")
    with cloned_database(request.getfixturevalue("postgres_cluster")) as database:
        services: list[Service] = []
        try:
            kafka.start()
            kafka.create_topics()
            mosquitto.start()
            services.append(bridge_on(folder / "bridge", mosquitto.url, kafka.port))
            services.append(
                driver_events_on(
                    folder / "driver_events",
                    database.url("driver_events"),
                    mosquitto.url,
                    kafka.port,
                )
            )
            for service in services:
                service.start()
            with database.connect(autocommit=True) as conn:
                admin.register_service_area(
                    conn, "firenze", west=11.1, south=43.7, east=11.4, north=43.9
                )
            yield Pipe(mosquitto, kafka, database, services[-1])
        finally:
            for server in (*services, mosquitto, kafka):
                server.stop()


def body(**changes: object) -> str:
    """A good fix of boot b1, seq 7, with changes; None leaves a field out."""
    members: dict[str, object] = {
        "boot": "b1",
        "seq": 7,
        "fix_at": int(time.time() * 1000),
        "lat_deg": AWAY.lat_deg,
        "lon_deg": AWAY.lon_deg,
    }
    return json.dumps({k: v for k, v in {**members, **changes}.items() if v is not None})


def raw(name: str, text: str) -> str:
    """A good fix with one field as raw JSON text."""
    return body(**{name: "@"}).replace('"@"', text)


def ago_ms(seconds: float) -> int:
    return int((time.time() - seconds) * 1000)


# class, payload, reason
WHOLE = [
    pytest.param(lambda: b"hello", "not_json", id="1-not-json"),
    pytest.param(lambda: body().encode()[:-9], "not_json", id="2-truncated"),
    pytest.param(lambda: b"", "empty", id="3-empty"),
    pytest.param(lambda: b"null", "wrong_shape", id="4-null"),
    pytest.param(lambda: b"42", "wrong_shape", id="4-shape"),
    pytest.param(
        lambda: f"[{','.join([body()] * 257)}]".encode(), "too_many_fixes", id="10-too-many"
    ),
    pytest.param(lambda: b"[" * 30_000 + b"]" * 30_000, "too_deep", id="12-too-deep"),
    pytest.param(lambda: body().encode().replace(b"b1", b"b\xff"), "not_utf8", id="13-not-utf8"),
    pytest.param(lambda: gzip.compress(body().encode()), "not_utf8", id="16-gzip"),
]
ENTRIES = [
    pytest.param(lambda: body(lat_deg=None), "missing_field", id="5-missing"),
    pytest.param(lambda: body(lon_deg="11.2"), "wrong_type", id="6-string"),
    pytest.param(lambda: body(lat_deg=True), "wrong_type", id="7-bool"),
    pytest.param(lambda: raw("lat_deg", "NaN"), "not_finite", id="8-NaN"),
    pytest.param(lambda: raw("lat_deg", "Infinity"), "not_finite", id="8-Infinity"),
    pytest.param(lambda: raw("lat_deg", "1e999"), "not_finite", id="8-1e999"),
    pytest.param(lambda: body()[:-1] + ',"lat_deg": 1}', "duplicate_key", id="9-duplicate-key"),
    pytest.param(lambda: raw("lat_deg", "4" * 5000), "number_too_long", id="11-5000-digits"),
    pytest.param(lambda: raw("boot", '"b\\u0000"'), "bad_text", id="14-nul"),
    pytest.param(lambda: raw("boot", '"\\ud800"'), "bad_text", id="15-surrogate"),
    pytest.param(lambda: body(lat_deg=90.1), "latitude_out_of_range", id="17-latitude"),
    pytest.param(lambda: body(lon_deg=-180.1), "longitude_out_of_range", id="18-longitude"),
    pytest.param(lambda: body(accuracy_m=-1), "accuracy_out_of_range", id="19-accuracy"),
    pytest.param(lambda: body(speed_mps=501), "speed_out_of_range", id="19-speed"),
    pytest.param(lambda: body(heading_deg=361), "heading_out_of_range", id="19-heading"),
    pytest.param(lambda: body(battery=1.1), "battery_out_of_range", id="19-battery"),
    pytest.param(lambda: body(fix_at="2026-11-21T12:00:00"), "no_time_zone", id="20-no-zone"),
    pytest.param(
        lambda: body(fix_at=int(time.time())), "seconds_for_milliseconds", id="21-seconds"
    ),
    pytest.param(lambda: body(fix_at="infinity"), "bad_instant", id="22-infinity"),
    pytest.param(lambda: body(fix_at="2026-02-30T12:00:00Z"), "bad_instant", id="22-february"),
    pytest.param(lambda: body(fix_at=ago_ms(-200)), "in_the_future", id="23-future"),
    pytest.param(lambda: body(fix_at=ago_ms(86_400 + 60)), "too_old", id="24-old"),
]


@pytest.fixture
def phone(pipe: Pipe, request: pytest.FixtureRequest) -> Iterator[Phone]:
    """A driver of the test's own."""
    driver_id = "bad-" + str(abs(hash(request.node.name)) % 10**10)
    with pipe.database.connect(autocommit=True) as conn:
        admin.register_drivers(conn, [admin.NewDriver(driver_id, driver_id, None)])
    phone = Phone(pipe.mosquitto, driver_id)
    yield phone
    phone.close()


def letter_of(pipe: Pipe, driver_id: str) -> tuple[bytes, dict[str, str]]:
    """The driver's only dead letter: its bytes and headers."""
    key = driver_id.encode()

    def enough(messages: list[Message]) -> bool:
        return any(message.key() == key for message in messages)

    [letter] = [one for one in read_topic(pipe.kafka, "dead-letter", enough) if one.key() == key]
    headers = {name: value.decode() for name, value in letter.headers() or []}
    return letter.value() or b"", headers


def seqs(pipe: Pipe, driver_id: str) -> list[int]:
    rows = pipe.database.rows(
        "SELECT seq FROM doorstep.fix_history WHERE driver_id = %s ORDER BY 1", driver_id
    )
    return [row["seq"] for row in rows]


@pytest.mark.parametrize(("make_payload", "reason"), WHOLE)
def test_bad_input__of_no_use__is_a_dead_letter_and_the_next_fix_is_kept(
    pipe: Pipe, phone: Phone, make_payload: Callable[[], bytes], reason: str
) -> None:
    payload = make_payload()
    phone.send([payload, body(seq=8).encode()])
    letter, headers = letter_of(pipe, phone.driver_id)
    assert letter == payload
    assert headers["reason"] == reason
    assert headers["source"] == "mqtt"
    assert headers["topic"] == f"doorstep/v1/drivers/{phone.driver_id}/position"
    assert headers["driver_id"] == phone.driver_id
    wait_until(lambda: seqs(pipe, phone.driver_id) == [8])


@pytest.mark.parametrize(("make_entry", "reason"), ENTRIES)
def test_bad_input__one_fix_of_an_array__is_a_dead_letter_and_its_neighbours_are_kept(
    pipe: Pipe, phone: Phone, make_entry: Callable[[], str], reason: str
) -> None:
    entry = make_entry()
    payload = f"[{body(seq=6)},{entry},{body(seq=8)}]".encode()
    phone.send([payload])
    letter, headers = letter_of(pipe, phone.driver_id)
    assert letter == payload
    assert headers["reason"] == reason
    wait_until(lambda: seqs(pipe, phone.driver_id) == [6, 8])
    wait_until(lambda: phone.heard and json.loads(phone.heard[-1][1])["seq"] == 8)
    # A refused seq that could be read is passed by the watermark; one that could not is missing.
    unread = reason == "bad_text"
    assert json.loads(phone.heard[-1][1])["missing"] == ([[1, 5], [7, 7]] if unread else [[1, 5]])


@pytest.mark.parametrize(
    ("changes", "quarantine"),
    [
        pytest.param({"lat_deg": 0, "lon_deg": 0}, "null_island", id="25"),
        pytest.param(
            {"lat_deg": AWAY.lon_deg, "lon_deg": AWAY.lat_deg}, "swapped", id="26-swapped"
        ),
        pytest.param({"accuracy_m": 201}, "inaccurate", id="26-inaccurate"),
    ],
)
def test_bad_input__doubtful__is_stored_in_quarantine(
    pipe: Pipe, phone: Phone, changes: dict[str, object], quarantine: str
) -> None:
    phone.send([body(**changes).encode()])
    wait_until(lambda: seqs(pipe, phone.driver_id) == [7])
    [row] = pipe.database.rows(
        "SELECT quarantine FROM doorstep.fix_history WHERE driver_id = %s", phone.driver_id
    )
    assert row["quarantine"] == quarantine


def test_bad_input__the_same_identity_with_another_body__is_a_dead_letter(
    pipe: Pipe, phone: Phone
) -> None:
    first = body().encode()
    phone.send([first])
    wait_until(lambda: seqs(pipe, phone.driver_id) == [7])
    phone.send([first, body(lat_deg=43.8).encode()])
    _, headers = letter_of(pipe, phone.driver_id)
    assert headers["reason"] == "conflict"
    assert seqs(pipe, phone.driver_id) == [7]


def test_bad_input__every_reason__is_counted(pipe: Pipe, phone: Phone) -> None:
    before = pipe.driver_events.metric("doorstep_driver_events_dead_letters_total")
    phone.send([b"hello", b"null"])
    wait_until(
        lambda: pipe.driver_events.metric("doorstep_driver_events_dead_letters_total") == before + 2
    )
    metrics = pipe.driver_events.get("/metrics")[1]
    assert 'doorstep_driver_events_refused_total{reason="not_json"}' in metrics
