"""FIX_SINK=driver_api: one PATCH per fix, on the running stack."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Message, Producer

from doorstep.fix import Fix, encode_fix, encode_position, instant_of
from doorstep.kafka.access_control import ADMIN
from doorstep.kafka.topic_specs import Topic, create_topics
from doorstep.store import fix_writer
from ops.servers.services import ServiceProcess
from ops.servers.waiting import wait_until
from ops.stack.stack import Stack
from tests.clients.kafka import read_topic

TOPIC = "patch-sink-pos"
DRIVER = "patch-sink-driver"


@pytest.fixture
def sink(stack: Stack, tmp_path: Path) -> Iterator[ServiceProcess]:
    stack.add_drivers([DRIVER])
    kafka = stack.kafka_access(ADMIN)  # the services have no access to the test's topic
    create_topics(kafka, topics=[Topic(TOPIC, 3, 3_600_000)])
    service = ServiceProcess(
        tmp_path / "sink",
        "driver_events",
        "DRIVER_EVENTS_BIND",
        FIX_SINK="driver_api",
        KAFKA_TOPIC=TOPIC,
        **kafka.environment(),
        DATABASE_URL=stack.database_admin_url,
        DRIVER_API_URL=f"http://{stack.addresses.driver_api}",
        DRIVER_API_TOKEN=stack.paths.driver_api_token(),
        MQTT_URL="mqtt://127.0.0.1:1",  # the stack's own driver_events sends the acks
    )
    service.launch()
    yield service
    service.stop()


def fix(boot: str, seq: int, **changes: float) -> Fix:
    values = {"lat_deg": 43.77, "lon_deg": 11.25, **changes}
    return Fix(boot, seq, instant_of(int(time.time() * 1000)), **values)


def produce(stack: Stack, payloads: list[bytes]) -> None:
    producer = Producer({**stack.kafka_access(ADMIN).as_librdkafka_dict()})
    for payload in payloads:
        producer.produce(TOPIC, payload, DRIVER)
    assert producer.flush(20) == 0


def is_committed(stack: Stack, boot: str, seq: int) -> Callable[[], bool]:
    def look() -> bool:
        with psycopg.connect(
            stack.database_admin_url, options="-c search_path=doorstep,public"
        ) as conn:
            marks = fix_writer.read_watermarks(conn, [(DRIVER, boot)])
        return any(mark.seq == seq and not mark.missing for mark in marks)

    return look


def test_patch_sink__good_and_bad_fixes__are_committed_or_dead_letters(
    stack: Stack, sink: ServiceProcess
) -> None:
    bad = encode_fix(fix("p1", 4, lat_deg=43.77)).replace(b"43.77", b"99")
    old = Fix("p1", 5, instant_of(1_700_000_000_000), 43.77, 11.25)
    produce(
        stack,
        [
            encode_position([fix("p1", 1), fix("p1", 2)]),
            encode_fix(fix("p1", 3)),
            b"hello",
            bad,
            encode_fix(old),
        ],
    )

    def mine(messages: list[Message]) -> dict[str, bytes]:
        return {
            dict(one.headers() or [])["reason"].decode(): one.value() or b""
            for one in messages
            if one.key() == DRIVER.encode()
        }

    wanted = {"not_json", "latitude_out_of_range", "too_old"}
    found = mine(
        read_topic(stack.kafka_access(ADMIN), "dead-letter", lambda all_: wanted <= set(mine(all_)))
    )
    assert found["not_json"] == b"hello"
    assert found["latitude_out_of_range"] == bad
    wait_until(lambda: sink.metric("doorstep_driver_events_fixes_total") >= 6)
    metrics = sink.get("/metrics")[1]
    assert 'doorstep_driver_events_fixes_total{outcome="committed"} 3.0' in metrics


def test_patch_sink__driver_api_unavailable__loses_nothing_and_keeps_the_arrival(
    stack: Stack, sink: ServiceProcess
) -> None:
    produce(stack, [encode_fix(fix("p2", 1))])
    wait_until(is_committed(stack, "p2", 1))
    stack.stop_process("driver_api")
    try:
        produce(stack, [encode_fix(fix("p2", seq)) for seq in range(2, 12)])
        wait_until(lambda: "waiting_for_driver_api" in sink.events())
        with psycopg.connect(stack.database_admin_url) as conn:
            [restarted_at] = conn.execute("SELECT clock_timestamp()").fetchone() or ()
    finally:
        stack.start_process("driver_api")
    wait_until(is_committed(stack, "p2", 11))
    with psycopg.connect(stack.database_admin_url) as conn:
        arrivals = conn.execute(
            "SELECT received_at FROM doorstep.fix_history WHERE driver_id = %s AND boot = 'p2'",
            (DRIVER,),
        ).fetchall()
    assert len(arrivals) == 11
    assert all(received_at < restarted_at for (received_at,) in arrivals)  # Kafka's, not PATCH's
    stack.wait_ready()
    assert json.loads(sink.get("/readyz")[1])["driver_api"] is True
