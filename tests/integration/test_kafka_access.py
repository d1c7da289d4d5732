"""Kafka answers to the principals of the services, each within its access rules."""

from __future__ import annotations

import os
import stat
import time

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from doorstep.kafka.access import KafkaAccess
from doorstep.kafka.access_control import ADMIN, OPERATOR
from ops.stack.addresses import reach
from ops.stack.stack import Stack

TIMEOUT_S = 15.0


def outcome_of_write(kafka: KafkaAccess, topic: str, timestamp_ms: int = 0) -> int:
    """Write one record as a principal; return its timestamp. Raises KafkaException."""
    stamps: list[int] = []
    failures: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, message: object) -> None:
        if error is not None:
            failures.append(error)
        else:
            stamps.append(message.timestamp()[1])  # type: ignore[attr-defined]

    producer = Producer({**kafka.as_librdkafka_dict(), "message.timeout.ms": 5000, "log_level": 0})
    producer.produce(
        topic, b"x", b"unknown-driver", on_delivery=on_delivery, timestamp=timestamp_ms
    )
    producer.flush(TIMEOUT_S)
    if failures or not stamps:
        raise KafkaException(failures[0] if failures else KafkaError(KafkaError._TIMED_OUT))
    return stamps[0]


def read_error(kafka: KafkaAccess, topic: str) -> KafkaError | None:
    """Read a topic as a principal; return the error, or None if it may."""
    consumer = Consumer({**kafka.as_librdkafka_dict(), "group.id": "tracking-api", "log_level": 0})
    try:
        consumer.list_topics(topic, timeout=5)
        consumer.subscribe([topic])
        deadline_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline_s:
            message = consumer.poll(1.0)
            if message is not None and message.error() is not None:
                return message.error()
            if consumer.assignment():
                return None
    except KafkaException as exc:
        return exc.args[0]  # type: ignore[no-any-return]
    finally:
        consumer.close()
    raise AssertionError("Kafka neither refused nor assigned a partition")


def test_anonymous__and_a_wrong_password__are_refused(stack: Stack) -> None:
    address = str(reach(stack.addresses.kafka))
    for access in (KafkaAccess(address), KafkaAccess(address, "bridge", "wrong")):
        client = AdminClient({**access.as_librdkafka_dict(), "log_level": 0})
        with pytest.raises(KafkaException):
            client.list_topics(timeout=3)


@pytest.mark.parametrize(
    ("principal", "topic"),
    [
        ("bridge", "tracking-positions"),
        ("driver_events", "driver-pos"),
        ("driver_api", "driver-pos"),
        ("tracking_api", "driver-pos"),
        ("tracking_api", "tracking-positions"),
        (OPERATOR, "driver-pos"),
    ],
)
def test_principal__writes_a_topic_of_another__is_refused(
    stack: Stack, principal: str, topic: str
) -> None:
    with pytest.raises(KafkaException) as exc_info:
        outcome_of_write(stack.kafka_access(principal), topic)
    assert exc_info.value.args[0].code() in (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError._PERMISSION_DENIED if hasattr(KafkaError, "_PERMISSION_DENIED") else -1,
    )


@pytest.mark.parametrize("principal", ["bridge", "driver_api"])
def test_principal__that_reads_nothing__cannot_read_positions(stack: Stack, principal: str) -> None:
    error = read_error(stack.kafka_access(principal), "driver-pos")
    assert error is not None
    assert error.code() in (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,  # what a topic that may not be described looks like
    )


@pytest.mark.parametrize("principal", ["bridge", "driver_events", "tracking_api", OPERATOR])
def test_service__deletes_a_topic__is_refused(stack: Stack, principal: str) -> None:
    client = AdminClient({**stack.kafka_access(principal).as_librdkafka_dict(), "log_level": 0})
    [deleted] = client.delete_topics(["streams"], request_timeout=TIMEOUT_S).values()
    with pytest.raises(KafkaException):
        deleted.result(TIMEOUT_S)
    assert (
        "streams"
        in AdminClient(stack.kafka_access(ADMIN).as_librdkafka_dict())
        .list_topics(timeout=TIMEOUT_S)
        .topics
    )


def test_driver_pos__a_producers_timestamp__is_replaced_by_the_brokers(stack: Stack) -> None:
    before_ms = int(time.time() * 1000) - 1000
    assert outcome_of_write(stack.kafka_access("bridge"), "driver-pos", 1_000) >= before_ms


def test_data_folder__is_closed_to_other_users(stack: Stack) -> None:
    folder = stack.paths.kafka.resolve()
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(folder / "server.properties").st_mode) == 0o600
