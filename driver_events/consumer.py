"""driver-pos, read as a member of a consumer group, from where the database says."""

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

from doorstep.errors import Unavailable
from doorstep.telemetry import get_logger
from driver_events import metrics
from driver_events.batch import Record

ADMIN_TIMEOUT_S = 5.0
MAX_POLL_INTERVAL_S = 300
SESSION_TIMEOUT_S = 6  # Kafka's least: partitions of one that does not come back are free then
NAME_TAKEN_PAUSE_S = 10.0  # above the session time-out: by then, whoever was gone is gone
FENCED = (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID)
FETCH_WAIT_MS = 20  # 50 answers a second when calm: 1 % of a core
RECONNECT_MS = 1000  # a Kafka that came back is found within this, instead of 10 s


class KafkaUnavailable(Unavailable):
    """Kafka can't be reached, or doesn't have the topic."""


class TopicIdentity(NamedTuple):
    """Which topic this is, apart from its name: a recreated one has another `topic_id`."""

    cluster_id: str
    topic_id: str


_new = tuple.__new__  # half of what a NamedTuple's own costs
_partition_of = Message.partition
_offset_of = Message.offset
NOWHERE = TopicIdentity("", "")  # before the first look


class PartitionConsumer:
    """The group decides which partitions are ours, the database where each goes on.

    Until `open()` nothing is read of what the group has assigned: librdkafka is given an empty
    assignment, which the group does not see. Pausing instead would leave a partition paused for
    ever now and then (librdkafka#5591: pause, assign, resume).
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        group_id: str,
        name: str,
        fetch_wait_ms: int = FETCH_WAIT_MS,
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._group_id = group_id
        self._name = name
        self._fetch_wait_ms = fetch_wait_ms
        self._log = get_logger(topic=topic)
        self._admin = self._meet_brokers()
        self._assigned: list[int] = []
        self._offsets: dict[int, int] = {}  # where each open partition goes on
        self._failed: KafkaError | None = None
        self._fenced_at = -math.inf
        self.emptied_at = 0.0  # when all that had been fetched was last taken
        self.has_joined = False
        self.needs_opening = False
        self.before_leaving: Callable[[], None] = lambda: None  # called before partitions go
        self._consumer = self._join()

    # ---- the group --------------------------------------------------------------------------

    def _join(self) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "group.id": self._group_id,
                "client.id": "driver-events",
                # A member that comes back under its name gets its partitions at once. Without one,
                # the group waits for the session of whoever had them: 6 s after each restart.
                "group.instance.id": self._name,
                "enable.auto.commit": False,  # offsets are rows, committed with the fixes
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": SESSION_TIMEOUT_S * 1000,
                "heartbeat.interval.ms": 2000,
                "max.poll.interval.ms": MAX_POLL_INTERVAL_S * 1000,
                "fetch.min.bytes": 65_536,  # some 300 fixes
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

    def rejoin(self, why: str) -> None:
        """Leave the group and join it anew: after a lost offset, a recreated topic, a failure."""
        metrics.REJOINS.labels(why).inc()
        self._log.warning("rejoining", why=why)
        self.before_leaving()
        self._consumer.close()
        self._on_revoke(self._consumer, [])
        self._failed = None
        self.has_joined = False
        self._consumer = self._join()

    def _come_back(self) -> None:
        """Join again after a consumer's only fatal error: somebody has our name.

        Once, that is ourselves: a Kafka that stood still has got two requests to join from us, and
        answers both. Twice in a row, it is another instance.
        """
        now = time.monotonic()
        if now - self._fenced_at < NAME_TAKEN_PAUSE_S:
            self._log.error("name_taken", name=self._name, error=str(self._failed))
            time.sleep(NAME_TAKEN_PAUSE_S)  # not in a tight loop
        self._fenced_at = time.monotonic()
        self.rejoin("fenced")

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._assigned = [one.partition for one in partitions]
        self._offsets = {}
        self.has_joined = True
        self.needs_opening = bool(partitions)
        consumer.assign([])
        self._log.info("assigned", partitions=self._assigned)

    def _on_revoke(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self.before_leaving()
        self._assigned = []
        self._offsets = {}
        self.needs_opening = False
        metrics.LAG.clear()  # another consumer's from now on

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failed = error

    # ---- where to go on ---------------------------------------------------------------------

    def _meet_brokers(self) -> AdminClient:
        """Ask the bootstrap servers who is there.

        Of two brokers librdkafka takes one for the controller, and waits for it for ever if that
        one has died: so a client that got no answer is not asked again.
        """
        return AdminClient(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "reconnect.backoff.max.ms": RECONNECT_MS,
                "log_level": 2,
            }
        )

    @property
    def assigned(self) -> Sequence[int]:
        """The partitions that the group has given us."""
        return self._assigned

    def identify(self) -> TopicIdentity:
        """Ask Kafka which topic this is. Raises KafkaUnavailable while it is not there."""
        try:
            topics = self._admin.describe_topics(
                TopicCollection([self._topic]), request_timeout=ADMIN_TIMEOUT_S
            )
            cluster = self._admin.describe_cluster(request_timeout=ADMIN_TIMEOUT_S)
            topic_id = topics[self._topic].result(2 * ADMIN_TIMEOUT_S).topic_id
            cluster_id = cluster.result(2 * ADMIN_TIMEOUT_S).cluster_id
        except (KafkaException, TimeoutError) as exc:
            self._admin = self._meet_brokers()
            raise KafkaUnavailable(str(exc)) from exc
        return TopicIdentity(str(cluster_id), str(topic_id))

    def behind(self) -> dict[int, tuple[int, int]]:
        """Ask Kafka where each open partition ends: (where we go on, its end).

        Any thread may call it. Raises KafkaUnavailable.
        """
        offsets = dict(self._offsets)
        if not offsets:
            return {}
        asked = {TopicPartition(self._topic, one): OffsetSpec.latest() for one in offsets}  # type: ignore[no-untyped-call]
        try:
            answers = self._admin.list_offsets(asked, request_timeout=ADMIN_TIMEOUT_S)
            ends = {one.partition: answer.result(2 * ADMIN_TIMEOUT_S).offset
                    for one, answer in answers.items()}  # fmt: skip
        except (KafkaException, TimeoutError) as exc:
            self._admin = self._meet_brokers()
            raise KafkaUnavailable(str(exc)) from exc
        return {one: (offset, ends[one]) for one, offset in offsets.items()}

    def open(self, offsets: Mapping[int, int]) -> None:
        """Start reading the assigned partitions at these offsets."""
        partitions = [TopicPartition(self._topic, one, offsets[one]) for one in self._assigned]
        self._consumer.assign(partitions)
        self._offsets = dict(offsets)
        self.needs_opening = False

    def shut(self) -> None:
        """Stop reading until `open()`, and stay in the group."""
        self._offsets = {}
        if self._assigned:
            self.needs_opening = True
            self._consumer.assign([])

    # ---- reading ----------------------------------------------------------------------------

    def take(self, most: int, timeout_s: float) -> list[Message]:
        """Read up to `most` messages, for up to `timeout_s`. Also keeps us in the group."""
        messages = self._consumer.consume(most, timeout_s)
        errors = [error for one in messages if (error := one.error()) is not None]
        for error in errors:
            if error.fatal() or error.code() in FENCED:
                self._failed = error
        if self._failed is not None:
            self._come_back()
            return []
        if len(messages) < most:
            self.emptied_at = time.monotonic()
        if errors or not self._offsets.keys() >= set(map(_partition_of, messages)):
            messages = [m for m in messages if not m.error() and m.partition() in self._offsets]
        return messages

    def moves_of(self, messages: Sequence[Message]) -> dict[int, tuple[int, int]]:
        """How far recording these messages moves each partition."""
        last = dict(zip(map(_partition_of, messages), map(_offset_of, messages), strict=True))
        return {
            partition: (self._offsets[partition], offset + 1)
            for partition, offset in last.items()
            if partition is not None and offset is not None
        }

    def holds(self, moves: Mapping[int, tuple[int, int]]) -> bool:
        """Whether all of these partitions are still read."""
        return self._offsets.keys() >= moves.keys()

    def advance(self, moves: Mapping[int, tuple[int, int]]) -> None:
        """Note that these moves are committed."""
        for partition, (_, to) in moves.items():
            if partition in self._offsets:
                self._offsets[partition] = to

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()


def records_of(messages: Sequence[Message]) -> list[Record]:
    """Take from messages what a batch needs."""
    return [_new(Record, (m.key(), m.value() or b"", m.timestamp()[1])) for m in messages]
