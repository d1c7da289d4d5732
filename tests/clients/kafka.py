"""Read and write Kafka topics in tests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from doorstep.kafka.access import KafkaAccess
from ops.servers.waiting import poll_until

METADATA_TIMEOUT_S = 10.0
FLUSH_TIMEOUT_S = 20.0


def read_topic(
    kafka: KafkaAccess,
    topic: str,
    is_complete: Callable[[list[Message]], bool],
    timeout_s: float = 30.0,
) -> list[Message]:
    """Read a topic from its beginning until `is_complete`. Raises AssertionError on time-out."""
    consumer = Consumer(
        {
            **kafka.as_librdkafka_dict(),
            "group.id": f"test-{os.getpid()}-{time.monotonic_ns()}",
            "enable.auto.commit": False,
        }
    )
    try:
        poll_until(lambda: partitions_of(consumer, topic))
        partitions = partitions_of(consumer, topic)
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        messages: list[Message] = []
        deadline_s = time.monotonic() + timeout_s
        while not is_complete(messages):
            assert time.monotonic() < deadline_s, f"{topic}: only {len(messages)} messages"
            messages += [
                message for message in consumer.consume(1000, 0.2) if message.error() is None
            ]
        return messages
    finally:
        consumer.close()


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    """Return a topic's partitions; none yet for a topic that has just been created."""
    found = consumer.list_topics(topic, timeout=METADATA_TIMEOUT_S).topics[topic]
    return [] if found.error else list(found.partitions)


def contains_all(values: set[bytes]) -> Callable[[list[Message]], bool]:
    """Return a condition for `read_topic`: every value has been read."""
    return lambda messages: values <= {message.value() or b"" for message in messages}


def produce(kafka: KafkaAccess, topic: str, records: Iterable[tuple[str, bytes]]) -> None:
    """Write (key, value) records and wait until Kafka has confirmed them."""
    producer = Producer({**kafka.as_librdkafka_dict(), "linger.ms": 5})
    for key, value in records:
        producer.produce(topic, value, key)
    assert producer.flush(FLUSH_TIMEOUT_S) == 0
