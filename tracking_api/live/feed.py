"""Which drivers moved and which orders changed, from Kafka.

One thread with one consumer for the whole process. It belongs to no group: every process reads
every record, starting with the newest. A record only makes an order due for a poll and never
decides what is shown, so a lost, duplicated, late or forged record does no harm.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from confluent_kafka import OFFSET_END, Consumer, KafkaException, Message, TopicPartition
from prometheus_client import Counter, Gauge

from doorstep.kafka.access import KafkaAccess
from doorstep.telemetry import get_logger

RECORDS = Counter("doorstep_live_records", "Records of the live feed.", ["topic", "outcome"])
LAG_S = Gauge(
    "doorstep_live_feed_lag_seconds", "Age of the newest record when it was consumed.", ["topic"]
)
CONNECTED = Gauge("doorstep_live_feed_connected", "Whether the live feed reaches Kafka.")

CONSUME_MAX_RECORDS = 500
CONSUME_TIMEOUT_S = 0.2
PROBE_INTERVAL_S = 3.0
PROBE_TIMEOUT_S = 1.0
RETRY_AFTER_S = 1.0

PackedPosition = list[Any]
"""One position: driver_id, fix_at_ms, received_at_ms, lon_deg, lat_deg, accuracy_m, …"""


class _Positions(msgspec.Struct):
    v: int
    positions: list[PackedPosition]


class _DriverOnly(msgspec.Struct, array_like=True, gc=False):
    """A packed position of which only the driver is decoded."""

    driver_id: str


class _MovedDrivers(msgspec.Struct):
    v: int
    positions: list[_DriverOnly]


class _OrderUpdate(msgspec.Struct):
    order_id: UUID
    order_seq: int
    driver_id: str | None = None


_decode_positions = msgspec.json.Decoder(_Positions).decode
_decode_moved_drivers = msgspec.json.Decoder(_MovedDrivers).decode
_decode_order_update = msgspec.json.Decoder(_OrderUpdate).decode


@dataclass(slots=True)
class FeedBatch:
    """The content of some consumed records."""

    moved_drivers: set[str] = field(default_factory=set)  # only watched ones
    orders: dict[UUID, int] = field(default_factory=dict)  # the greatest order_seq of each
    order_drivers: set[str] = field(default_factory=set)  # drivers of changed orders
    positions: list[PackedPosition] = field(default_factory=list)  # all, where they are needed


class Feed:
    """The consumer's thread, which calls `on_batch`."""

    def __init__(
        self,
        kafka: KafkaAccess,
        *,
        updates_topic: str,
        positions_topic: str,
        on_batch: Callable[[FeedBatch], None],
        watched_drivers: Container[str],
        needs_positions: Callable[[], bool] = lambda: False,
        on_pushed: Callable[[Sequence[Message]], None] | None = None,
    ) -> None:
        self._updates_topic = updates_topic
        self._positions_topic = positions_topic
        self._on_batch = on_batch
        self._watched_drivers = watched_drivers
        self._needs_positions = needs_positions
        self._on_pushed = on_pushed
        self._config = {
            **kafka.as_librdkafka_dict(),
            "group.id": "tracking-api",  # required by librdkafka; no offsets are committed
            "client.id": "tracking-api-live",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "latest",
            "fetch.wait.max.ms": 50,
            "reconnect.backoff.max.ms": 1000,  # connected within 5 s of Kafka's return
            "topic.metadata.refresh.interval.ms": 10_000,
            "allow.auto.create.topics": False,
            "log_level": 0,  # /readyz and the metrics report an unreachable Kafka
        }
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-feed", daemon=True)
        self.connected = False

    def start(self) -> None:
        """Start consuming, now or when Kafka is reachable."""
        self._thread.start()

    def close(self) -> None:
        """Stop consuming."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._consume()
            except KafkaException:
                self._set_connected(False)
            except Exception:  # noqa: BLE001 - a thread's boundary
                get_logger().exception("live_feed_defect")
            self._stopping.wait(RETRY_AFTER_S)

    def _consume(self) -> None:
        """Consume until the partitions change. Raises KafkaException if Kafka is unreachable."""
        consumer = Consumer(self._config)
        try:
            partitions = self._partitions(consumer)
            consumer.assign([TopicPartition(*one, OFFSET_END) for one in partitions])
            probe_s = time.monotonic() + PROBE_INTERVAL_S
            while not self._stopping.is_set():
                # `consume(n)` blocks until it has n records: wait for one, then take the rest
                messages = consumer.consume(1, CONSUME_TIMEOUT_S)
                if messages:
                    messages += consumer.consume(CONSUME_MAX_RECORDS, 0)
                    self._on_batch(self.decode(messages))
                    if self._on_pushed is not None:
                        self._on_pushed(messages)
                if time.monotonic() >= probe_s:
                    if self._probe(consumer) not in (None, partitions):
                        return
                    probe_s = time.monotonic() + PROBE_INTERVAL_S
        finally:
            consumer.close()

    def _probe(self, consumer: Consumer) -> set[tuple[str, int]] | None:
        """Return the partitions. None if Kafka is unreachable: the consumer keeps retrying."""
        try:
            return self._partitions(consumer)
        except KafkaException:
            self._set_connected(False)
            return None

    def _partitions(self, consumer: Consumer) -> set[tuple[str, int]]:
        topics = consumer.list_topics(timeout=PROBE_TIMEOUT_S).topics
        wanted = {self._updates_topic, self._positions_topic}
        found = {
            (name, number)
            for name in wanted
            for number in (topics[name].partitions if name in topics else ())
        }
        self._set_connected({name for name, _ in found} == wanted)
        return found

    def _set_connected(self, connected: bool) -> None:
        self.connected = connected
        CONNECTED.set(connected)

    def decode(self, messages: Iterable[Message]) -> FeedBatch:
        """Decode records. Unreadable ones are counted and skipped."""
        batch = FeedBatch()
        needs_positions = self._needs_positions()
        for message in messages:
            topic = message.topic() or ""
            if message.error():
                RECORDS.labels(topic, "error").inc()
                continue
            try:
                self._decode_one(batch, topic, message.value() or b"", needs_positions)
            except (msgspec.DecodeError, IndexError, TypeError):
                RECORDS.labels(topic, "unreadable").inc()
                continue
            RECORDS.labels(topic, "consumed").inc()
            _, created_ms = message.timestamp()
            LAG_S.labels(topic).set(max(0.0, time.time() - created_ms / 1000))
        return batch

    def _decode_one(
        self, batch: FeedBatch, topic: str, value: bytes, needs_positions: bool
    ) -> None:
        if topic == self._updates_topic:
            update = _decode_order_update(value)
            known_seq = batch.orders.get(update.order_id, 0)
            batch.orders[update.order_id] = max(known_seq, update.order_seq)
            if update.driver_id is not None:
                batch.order_drivers.add(update.driver_id)
        elif needs_positions:
            positions = _decode_positions(value).positions
            moved = [one[0] for one in positions if one[0] in self._watched_drivers]
            batch.moved_drivers.update(moved)
            batch.positions += positions
        else:
            for one in _decode_moved_drivers(value).positions:
                if one.driver_id in self._watched_drivers:
                    batch.moved_drivers.add(one.driver_id)
