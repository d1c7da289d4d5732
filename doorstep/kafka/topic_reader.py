"""Reads ranges of a topic without joining a group or committing offsets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Self, TypeVar, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import TopicCollection as Topics
from confluent_kafka.admin import AdminClient

from doorstep.errors import DoorstepError, KafkaUnavailable
from doorstep.kafka.access import KafkaAccess

T = TypeVar("T")

REQUEST_TIMEOUT_S = 5.0
IDLE_TIMEOUT_S = 15.0  # without a record or an end: Kafka is unavailable
PROGRESS_EVERY = 100_000

OffsetRange = tuple[int, int]
"""Offsets [from, to) of one partition."""


class NoSuchTopic(DoorstepError):
    """Kafka has no such topic."""


class TopicReader:
    """One topic, read by offsets. Close it, or use it in a `with`."""

    def __init__(self, kafka: KafkaAccess, topic: str) -> None:
        """Read the topic's partitions. Raises KafkaUnavailable or NoSuchTopic."""
        self.topic = topic
        self._kafka = kafka
        self._consumer = Consumer(
            {
                **kafka.as_librdkafka_dict(),
                "group.id": "doorstep-operate",  # required by librdkafka, never joined
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "allow.auto.create.topics": False,
                "fetch.wait.max.ms": 10,  # a pending fetch delays other requests
                "log_level": 0,
            }
        )
        known = self._call(lambda: self._consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_S))
        if known.topics[topic].error is not None or not known.topics[topic].partitions:
            self.close()
            raise NoSuchTopic(f"Kafka has no topic {topic!r}")
        self.partitions = sorted(known.topics[topic].partitions)

    def bounds(self) -> dict[int, OffsetRange]:
        """Return the oldest and the next offset of each partition."""
        return {
            one: self._call(
                partial(self._consumer.get_watermark_offsets, at, timeout=REQUEST_TIMEOUT_S)
            )
            for one in self.partitions
            for at in (TopicPartition(self.topic, one),)
        }

    def since(self, at_ms: int) -> dict[int, OffsetRange]:
        """Return the offsets of each partition from a timestamp on."""
        times = [TopicPartition(self.topic, one, at_ms) for one in self.partitions]
        found = self._call(
            lambda: self._consumer.offsets_for_times(times, timeout=REQUEST_TIMEOUT_S)
        )
        bounds = self.bounds()
        return {
            one.partition: (high if one.offset < 0 else max(low, one.offset), high)
            for one in found
            for low, high in (bounds[one.partition],)
        }

    def read(
        self, ranges: Mapping[int, OffsetRange], say: Callable[[str], None] | None = None
    ) -> Iterator[Message]:
        """Read ranges of partitions, each in offset order. Raises KafkaUnavailable."""
        ends = {one: end for one, (start, end) in ranges.items() if start < end}
        self._consumer.assign([TopicPartition(self.topic, one, ranges[one][0]) for one in ends])
        total = sum(end - ranges[one][0] for one, end in ends.items())
        seen = 0
        deadline = time.monotonic() + IDLE_TIMEOUT_S
        while ends:
            if time.monotonic() > deadline:
                raise KafkaUnavailable(f"Kafka at {self._kafka} stopped answering")
            for message in self._consumer.consume(1000, 0.05):
                deadline = time.monotonic() + IDLE_TIMEOUT_S
                partition, offset = partition_and_offset(message)
                end = ends.get(partition)
                if end is None:
                    continue
                error = message.error()
                if error is None and offset < end:
                    seen += 1
                    if say is not None and seen % PROGRESS_EVERY == 0:
                        say(f"{seen:,} of some {total:,} records of {self.topic} read")
                    yield message
                if (error is None and offset >= end - 1) or _is_end(error):
                    del ends[partition]
        self._consumer.unassign()

    def identify(self) -> tuple[str, str]:
        """Return (cluster_id, topic_id), as in the table kafka_offset."""
        admin = AdminClient({**self._kafka.as_librdkafka_dict(), "log_level": 0})
        topics = admin.describe_topics(Topics([self.topic]), request_timeout=REQUEST_TIMEOUT_S)
        cluster = admin.describe_cluster(request_timeout=REQUEST_TIMEOUT_S)
        topic_id = self._call(lambda: topics[self.topic].result(2 * REQUEST_TIMEOUT_S).topic_id)
        cluster_id = self._call(lambda: cluster.result(2 * REQUEST_TIMEOUT_S).cluster_id)
        return str(cluster_id), str(topic_id)

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, request: Callable[[], T]) -> T:
        try:
            return request()
        except (KafkaException, TimeoutError) as exc:
            raise KafkaUnavailable(f"Kafka does not answer at {self._kafka}: {exc}") from exc


def partition_and_offset(message: Message) -> tuple[int, int]:
    """Return a consumed record's partition and offset, which are never None."""
    return cast("int", message.partition()), cast("int", message.offset())


def _is_end(error: KafkaError | None) -> bool:
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key under `murmur2_random`, the partitioner of all producers."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """32-bit MurmurHash2 with seed 0x9747b28c, unsigned, as in Kafka's Java client."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
