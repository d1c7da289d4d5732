"""The live feed of driver_api on a real Kafka, and on one that is not there."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client import REGISTRY

from doorstep.fix import Fix
from doorstep.kafka.access import KafkaAccess
from driver_api.positions import QUEUE_RECORDS, KafkaPositions
from ops.servers.kafka import KafkaServer

TOPIC = "tracking-positions"


@pytest.fixture
def topic(kafka_broker: KafkaServer) -> str:
    admin = AdminClient({**kafka_broker.access.as_librdkafka_dict()})
    for created in admin.create_topics([NewTopic(TOPIC, 3, 1)]).values():
        created.result(30)
    return TOPIC


def make_fix(seq: int) -> Fix:
    return Fix("b", seq, datetime(2026, 1, 1, tzinfo=UTC), 43.77, 11.25, accuracy_m=5.0)


def test_publish__with_kafka__each_position_arrives_under_its_drivers_key(kafka_broker, topic):
    positions = KafkaPositions(kafka_broker.access, topic)
    for n in range(10):
        positions.publish(f"d{n}", make_fix(n + 1), 1_767_225_600_500)
    positions.flush(30)
    consumer = Consumer(
        {
            **kafka_broker.access.as_librdkafka_dict(),
            "group.id": "test",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    found = {}
    until = time.monotonic() + 30
    while len(found) < 10 and time.monotonic() < until:
        for message in consumer.consume(10, 1):
            assert message.error() is None
            found[message.key().decode()] = json.loads(message.value())
    consumer.close()
    assert found.keys() == {f"d{n}" for n in range(10)}
    at_ms = 1_767_225_600_000
    assert found["d3"] == {
        "v": 1,
        "positions": [["d3", at_ms, at_ms + 500, 11.25, 43.77, 5.0, None, None]],
    }


def test_publish__without_kafka__never_blocks_and_drops_the_excess():
    positions = KafkaPositions(KafkaAccess("127.0.0.1:1"), TOPIC)
    before = dropped()
    for n in range(3 * QUEUE_RECORDS):  # blocking would take Kafka's time-out each: hours
        positions.publish("d1", make_fix(n + 1), 0)
    assert dropped() - before >= QUEUE_RECORDS
    positions.close()


def dropped() -> float:
    labels = {"outcome": "dropped"}
    return REGISTRY.get_sample_value("doorstep_driver_api_positions_total", labels) or 0.0
