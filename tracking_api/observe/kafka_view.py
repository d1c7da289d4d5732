"""A read-only view of Kafka: topics, partitions, groups, lag, and messages of a few topics.

tracking_api's principal may describe every topic and group, which shows names and offsets only. It
shows messages of topics that it reads for the live pages anyway and that hold no position: Kafka
views of positions would bypass the rules of who may see a driver.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from doorstep.errors import KafkaUnavailable, NotFound
from doorstep.kafka.access import KafkaAccess
from tracking_api.observe.schemas import (
    Group,
    GroupOffset,
    KafkaAnswer,
    KafkaMessage,
    KafkaMessages,
    Partition,
    Topic,
)

ANSWER_TIMEOUT_S = 5.0
READ_FOR_S = 2.0
MAX_MESSAGES = 50
SHOWN_BYTES = 2048  # of a value; 200 of a key or header
SHORT_BYTES = 200

Answer = TypeVar("Answer")


class UnreadableTopic(NotFound):
    """The messages of this topic are not shown here."""

    problem = "unreadable-topic"


class KafkaView:
    """Reads Kafka in one thread, with clients that live as long as one request."""

    def __init__(self, kafka: KafkaAccess, readable: frozenset[str]) -> None:
        self._config: dict[str, Any] = {**kafka.as_librdkafka_dict(), "log_level": 0}
        self._readable = readable
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-view")

    async def describe(self) -> KafkaAnswer:
        """List topics and consumer groups. Raises KafkaUnavailable."""
        return await self._run(self._describe)

    async def read_messages(self, topic: str, partition: int, count: int) -> KafkaMessages:
        """Read a partition's newest records. Raises UnreadableTopic, KafkaUnavailable."""
        if topic not in self._readable:
            raise UnreadableTopic
        return await self._run(lambda: self._read(topic, partition, min(count, MAX_MESSAGES)))

    def close(self) -> None:
        """End the thread after its present request."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], Answer]) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work)
        except (KafkaException, TimeoutError) as exc:
            raise KafkaUnavailable from exc

    def _describe(self) -> KafkaAnswer:
        admin = AdminClient(self._config)
        found = admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics
        partitions = [
            TopicPartition(name, number)
            for name, topic in found.items()
            for number in topic.partitions
        ]
        low = _offsets(admin, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        high = _offsets(admin, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        topics = [
            Topic(
                name=name,
                is_readable=name in self._readable,
                partitions=[
                    Partition(
                        partition=number,
                        low=low[name, number],
                        high=high[name, number],
                        leader=one.leader,
                        replicas=len(one.replicas),
                        in_sync=len(one.isrs),
                    )
                    for number, one in sorted(topic.partitions.items())
                ],
            )
            for name, topic in sorted(found.items())
        ]
        return KafkaAnswer(topics=topics, groups=_groups(admin, high))

    def _read(self, topic: str, partition: int, count: int) -> KafkaMessages:
        # No group is joined and nothing is committed: librdkafka only requires a name.
        consumer = Consumer(
            {**self._config, "group.id": "tracking-api-view", "enable.auto.commit": False}
        )
        try:
            low, high = consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=ANSWER_TIMEOUT_S
            )
            start = max(low, high - count)
            consumer.assign([TopicPartition(topic, partition, start)])
            found: list[Message] = []
            deadline = time.monotonic() + READ_FOR_S
            while start + len(found) < high and time.monotonic() < deadline:
                found += [one for one in consumer.consume(count, 0.2) if one.error() is None]
            return KafkaMessages(messages=[_message(one) for one in reversed(found)])
        finally:
            consumer.close()


def _offsets(
    admin: AdminClient, partitions: list[TopicPartition], spec: OffsetSpec
) -> Mapping[tuple[str, int], int]:
    wanted = admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=ANSWER_TIMEOUT_S)
    return {
        (one.topic, one.partition): answer.result(ANSWER_TIMEOUT_S).offset
        for one, answer in wanted.items()
    }


def _groups(admin: AdminClient, high: Mapping[tuple[str, int], int]) -> list[Group]:
    timeout = {"request_timeout": ANSWER_TIMEOUT_S}
    listed = admin.list_consumer_groups(**timeout).result(ANSWER_TIMEOUT_S).valid
    names = sorted(one.group_id for one in listed)
    described = admin.describe_consumer_groups(names, **timeout) if names else {}
    groups = []
    for name in names:
        about = described[name].result(ANSWER_TIMEOUT_S)
        [asked] = admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(name)], **timeout
        ).values()
        committed = asked.result(ANSWER_TIMEOUT_S).topic_partitions
        offsets = [
            GroupOffset(
                topic=one.topic,
                partition=one.partition,
                committed=one.offset,
                lag=max(0, high.get((one.topic, one.partition), one.offset) - one.offset),
            )
            for one in committed
            if one.offset >= 0
        ]
        groups.append(
            Group(name=name, state=about.state.name, members=len(about.members), offsets=offsets)
        )
    return groups


def _message(record: Message) -> KafkaMessage:
    kind, at_ms = record.timestamp()
    value = record.value() or b""
    headers = cast("list[tuple[str, bytes | None]]", record.headers() or [])
    return KafkaMessage(
        partition=record.partition() or 0,
        offset=record.offset() or 0,
        at=None if kind == TIMESTAMP_NOT_AVAILABLE else datetime.fromtimestamp(at_ms / 1000, UTC),
        key=_text(record.key() or b"", SHORT_BYTES),
        value=_text(value, SHOWN_BYTES),
        size_bytes=len(value),
        headers={name: _text(content or b"", SHORT_BYTES) for name, content in headers[:10]},
    )


def _text(content: bytes | str, limit: int) -> str:
    """Return the start of a record's bytes, control characters and wrong UTF-8 escaped."""
    raw = content.encode() if isinstance(content, str) else content
    text = raw[:limit].decode("utf-8", "backslashreplace")
    shown = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
    return shown + ("…" if len(raw) > limit else "")
