"""A consumer-group member that reads a topic from offsets stored in the database."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from doorstep.errors import KafkaUnavailable
from doorstep.kafka.access import KafkaAccess
from doorstep.telemetry import get_logger
from driver_events import metrics
from driver_events.batch import Record

ADMIN_TIMEOUT_S = 5.0
MAX_POLL_INTERVAL_S = 300
SESSION_TIMEOUT_S = 6  # Kafka's minimum: a dead member's partitions are reassigned after this
NAME_TAKEN_PAUSE_S = 10.0  # above the session time-out
FENCED = (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID)
FETCH_WAIT_MS = 20  # 50 fetches a second at low load: 1 % of a core
RECONNECT_MS = 1000  # a Kafka that returns is found within this; the default is 10 s


class TopicIdentity(NamedTuple):
    """Identifies a topic beyond its name: a recreated one has another `topic_id`."""

    cluster_id: str
    topic_id: str


_new = tuple.__new__  # half the cost of a NamedTuple's own constructor
_partition_of = Message.partition
_offset_of = Message.offset
UNKNOWN_TOPIC = TopicIdentity("", "")  # before the first `identify()`


class PartitionConsumer:
    """The group assigns partitions; the database holds each one's next offset.

    Until `assign()` nothing is read of the group's assignment: librdkafka gets an empty one, which
    the group does not see. Pausing instead can leave a partition paused for ever
    (librdkafka#5591: pause, assign, resume).
    """

    def __init__(
        self,
        kafka: KafkaAccess,
        topic: str,
        group_id: str,
        name: str,
        fetch_wait_ms: int = FETCH_WAIT_MS,
        check_clock: Callable[[], None] = lambda: None,
    ) -> None:
        self._kafka = kafka
        self._topic = topic
        self._group_id = group_id
        self._name = name
        self._fetch_wait_ms = fetch_wait_ms
        self.check_clock = check_clock
        self._log = get_logger(topic=topic)
        self._deleted_unread = metrics.DELETED_UNREAD.labels(topic)  # a series before it counts
        self._admin = self._make_admin_client()
        self._assigned: list[int] = []
        self._offsets: dict[int, int] = {}  # the next offset of each partition that is read
        self._failed: KafkaError | None = None
        self._fenced_at = -math.inf
        self.drained_at_s = 0.0  # when the fetch queue was last empty
        self.has_joined = False
        self.needs_offsets = False
        self.on_leave: Callable[[], None] = lambda: None  # called before partitions are revoked
        self.on_preceding: Callable[[Sequence[Message]], None] = lambda _: None
        self._awaits_preceding: set[int] = set()  # partitions
        self._consumer = self._join()

    def _join(self) -> Consumer:
        consumer = Consumer(
            {
                **self._kafka.as_librdkafka_dict(),
                "group.id": self._group_id,
                "client.id": "driver-events",
                # Static membership: a restarted member gets its partitions back immediately.
                # Otherwise the group waits for the old session to expire: 6 s per restart.
                "group.instance.id": self._name,
                "enable.auto.commit": False,  # offsets are rows, committed with the fixes
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": SESSION_TIMEOUT_S * 1000,
                "heartbeat.interval.ms": 2000,
                "max.poll.interval.ms": MAX_POLL_INTERVAL_S * 1000,
                "fetch.min.bytes": 65_536,  # about 300 fixes
                "fetch.wait.max.ms": self._fetch_wait_ms,
                "reconnect.backoff.max.ms": RECONNECT_MS,
                "queued.min.messages": 20_000,  # a few of the largest batches
                "queued.max.messages.kbytes": 65_536,
                "topic.metadata.refresh.interval.ms": 10_000,
                "allow.auto.create.topics": False,
                "log_level": 2,
                "error_cb": self._on_error,
            }
        )
        consumer.subscribe(
            [self._topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )
        return consumer

    def rejoin(self, reason: str) -> None:
        """Leave the group and join it again: after a lost offset, a recreated topic, a failure."""
        metrics.REJOINS.labels(reason).inc()
        self._log.warning("rejoining", reason=reason)
        self.on_leave()
        self._consumer.close()
        self._on_revoke(self._consumer, [])
        self._failed = None
        self.has_joined = False
        self._consumer = self._join()

    def _rejoin_after_fatal(self) -> None:
        """Join again after the fatal error that another member has this instance id.

        Once, it is this process: a Kafka that was suspended may answer two of its join requests.
        Twice in a row, it is another instance.
        """
        now = time.monotonic()
        if now - self._fenced_at < NAME_TAKEN_PAUSE_S:
            self._log.error("name_taken", name=self._name, error=str(self._failed))
            time.sleep(NAME_TAKEN_PAUSE_S)
        self._fenced_at = time.monotonic()
        self.rejoin("fenced")

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._assigned = [one.partition for one in partitions]
        self._offsets = {}
        self.has_joined = True
        self.needs_offsets = bool(partitions)
        consumer.assign([])
        self._log.info("assigned", partitions=self._assigned)

    def _on_revoke(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self.on_leave()
        self._assigned = []
        self._offsets = {}
        self.needs_offsets = False
        metrics.LAG.clear()  # reported by the new owner

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failed = error

    def _make_admin_client(self) -> AdminClient:
        """Connect to the bootstrap servers.

        librdkafka waits for ever for a controller that has died, so a client that got no answer is
        replaced by a new one.
        """
        return AdminClient(
            {
                **self._kafka.as_librdkafka_dict(),
                "reconnect.backoff.max.ms": RECONNECT_MS,
                "log_level": 2,
            }
        )

    @property
    def assigned(self) -> Sequence[int]:
        """The partitions that the group has assigned."""
        return self._assigned

    def identify(self) -> TopicIdentity:
        """Read the topic's identity. Raises KafkaUnavailable, also if there is no such topic."""
        try:
            topics = self._admin.describe_topics(
                TopicCollection([self._topic]), request_timeout=ADMIN_TIMEOUT_S
            )
            cluster = self._admin.describe_cluster(request_timeout=ADMIN_TIMEOUT_S)
            topic_id = topics[self._topic].result(2 * ADMIN_TIMEOUT_S).topic_id
            cluster_id = cluster.result(2 * ADMIN_TIMEOUT_S).cluster_id
        except (KafkaException, TimeoutError) as exc:
            self._admin = self._make_admin_client()
            raise KafkaUnavailable(str(exc)) from exc
        return TopicIdentity(str(cluster_id), str(topic_id))

    def end_offsets(self) -> dict[int, tuple[int, int]]:
        """Return (next offset, end offset) of each partition that is read.

        Thread-safe. Raises KafkaUnavailable.
        """
        offsets = dict(self._offsets)
        if not offsets:
            return {}
        requests = {TopicPartition(self._topic, one): OffsetSpec.latest() for one in offsets}  # type: ignore[no-untyped-call]
        try:
            answers = self._admin.list_offsets(requests, request_timeout=ADMIN_TIMEOUT_S)
            ends = {one.partition: answer.result(2 * ADMIN_TIMEOUT_S).offset
                    for one, answer in answers.items()}  # fmt: skip
        except (KafkaException, TimeoutError) as exc:
            self._admin = self._make_admin_client()
            raise KafkaUnavailable(str(exc)) from exc
        return {one: (offset, ends[one]) for one, offset in offsets.items()}

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Start reading the assigned partitions at these offsets. Raises ClockStepped.

        The record before each, if Kafka still has it, only goes to `on_preceding`.
        """
        self.check_clock()
        before = {one: max(0, offsets[one] - 1) for one in self._assigned}
        self._consumer.assign([TopicPartition(self._topic, *one) for one in before.items()])
        self._offsets = dict(offsets)
        self._awaits_preceding = {one for one, offset in offsets.items() if offset > 0}
        self.needs_offsets = False

    def unassign(self) -> None:
        """Stop reading until `assign()`, and stay in the group."""
        self._offsets = {}
        if self._assigned:
            self.needs_offsets = True
            self._consumer.assign([])

    def consume(self, limit: int, timeout_s: float) -> list[Message]:
        """Read up to `limit` messages within `timeout_s`. Also keeps the group membership.

        Raises ClockStepped: messages that were read cannot be judged now.
        """
        messages = self._consumer.consume(limit, timeout_s)
        errors = [error for one in messages if (error := one.error()) is not None]
        for error in errors:
            if error.fatal() or error.code() in FENCED:
                self._failed = error
        if self._failed is not None:
            self._rejoin_after_fatal()
            return []
        if len(messages) < limit:
            self.drained_at_s = time.monotonic()
        if errors or not self._offsets.keys() >= set(map(_partition_of, messages)):
            messages = [m for m in messages if not m.error() and m.partition() in self._offsets]
        if self._awaits_preceding and messages:
            messages = self._without_preceding(messages)
        if messages:
            self.check_clock()
        return messages

    def _without_preceding(self, messages: Sequence[Message]) -> list[Message]:
        before = [m for m in messages if (m.offset() or 0) + 1 == self._offsets[m.partition() or 0]]
        self._awaits_preceding -= {m.partition() or 0 for m in messages}
        if before:
            self.on_preceding(before)
        return [m for m in messages if m not in before]

    def offset_ranges_of(self, messages: Sequence[Message]) -> dict[int, tuple[int, int]]:
        """Return the offsets [from, to) of each partition that these messages cover."""
        last = dict(zip(map(_partition_of, messages), map(_offset_of, messages), strict=True))
        return {
            partition: (self._offsets[partition], offset + 1)
            for partition, offset in last.items()
            if partition is not None and offset is not None
        }

    def owns(self, offset_ranges: Mapping[int, tuple[int, int]]) -> bool:
        """True if all of these partitions are still read."""
        return self._offsets.keys() >= offset_ranges.keys()

    def advance(self, offset_ranges: Mapping[int, tuple[int, int]], records: int) -> None:
        """Advance the next offsets past committed ranges, which held so many records.

        Offsets of these topics have no gaps, so the others were deleted before they were read.
        """
        for partition, (_, to) in offset_ranges.items():
            if partition in self._offsets:
                self._offsets[partition] = to
        deleted = sum(to - start for start, to in offset_ranges.values()) - records
        if deleted > 0:
            self._deleted_unread.inc(deleted)
            self._log.error("deleted_before_read", records=deleted)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()


def records_of(messages: Sequence[Message]) -> list[Record]:
    """Convert Kafka messages to the records of a batch."""
    return [_new(Record, (m.key(), m.value() or b"", m.timestamp()[1])) for m in messages]
