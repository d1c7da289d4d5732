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
    KafkaException,
    Message,
    TopicPartition,
)

from doorstep.errors import KafkaUnavailable, NotFound, StoreUnavailable, TooManyRequests
from doorstep.kafka.access import KafkaAccess
from tracking_api.observe.kafka_answer import answer_of
from tracking_api.observe.kafka_state import read_state
from tracking_api.observe.queries import OffsetStore
from tracking_api.observe.schemas import KafkaAnswer, KafkaMessage, KafkaMessages

ANSWER_TIMEOUT_S = 5.0
READ_FOR_S = 2.0
KEEP_S = 4.0  # an answer, or that there was none, for other viewers of the page
MAX_READS = 4  # of messages, waiting or running
MAX_MESSAGES = 50
SHOWN_BYTES = 2048  # of a value; 200 of a key or header
SHORT_BYTES = 200

Answer = TypeVar("Answer")


class UnreadableTopic(NotFound):
    """The messages of this topic are not shown here."""

    problem = "unreadable-topic"


class KafkaView:
    """Reads Kafka in one thread, with clients that live as long as one request.

    `stored_groups` names the topic of each consumer group whose offsets the database holds.
    """

    def __init__(
        self,
        kafka: KafkaAccess,
        readable: frozenset[str],
        stored_groups: Mapping[str, str],
        offsets: OffsetStore,
    ) -> None:
        self._config: dict[str, Any] = {**kafka.as_librdkafka_dict(), "log_level": 0}
        self._readable = readable
        self._stored_groups = stored_groups
        self._offsets = offsets
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-view")
        self._lock = asyncio.Lock()
        self._kept: KafkaAnswer | KafkaUnavailable | StoreUnavailable = KafkaUnavailable()
        self._kept_until_s = 0.0
        self._reads = 0

    async def describe(self) -> KafkaAnswer:
        """List topics and consumer groups, at most once in KEEP_S.

        Raises KafkaUnavailable, StoreUnavailable.
        """
        async with self._lock:
            if time.monotonic() >= self._kept_until_s:
                try:
                    self._kept = await self._describe()
                except (KafkaUnavailable, StoreUnavailable) as exc:
                    self._kept = exc
                self._kept_until_s = time.monotonic() + KEEP_S
            kept = self._kept
        if isinstance(kept, KafkaAnswer):
            return kept
        raise type(kept)(str(kept)) from kept

    async def read_messages(self, topic: str, partition: int, count: int) -> KafkaMessages:
        """Read a partition's newest records.

        Raises UnreadableTopic, KafkaUnavailable, and TooManyRequests if others wait for theirs.
        """
        if topic not in self._readable:
            raise UnreadableTopic
        if self._reads >= MAX_READS:
            raise TooManyRequests(READ_FOR_S)
        self._reads += 1
        try:
            return await self._run(lambda: self._read(topic, partition, min(count, MAX_MESSAGES)))
        finally:
            self._reads -= 1

    def close(self) -> None:
        """End the thread after its present request."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], Answer]) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work)
        except (KafkaException, TimeoutError) as exc:
            raise KafkaUnavailable from exc

    async def _describe(self) -> KafkaAnswer:
        state = await self._run(lambda: read_state(self._config))
        stored_topics = set(self._stored_groups.values())
        topic_ids = [one.topic_id for one in state.topics if one.name in stored_topics]
        stored = await self._offsets.read_stored_offsets(state.cluster_id, topic_ids)
        return answer_of(state, self._readable, self._stored_groups, stored)

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
