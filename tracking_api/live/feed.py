"""What Kafka says: which drivers moved, and how far which order has got.

One thread with one consumer for the whole process, whoever watches. It belongs to no group: every
process hears everything, from the newest on. Nothing here decides what is shown, so a record that
is lost, doubled, late or forged can do no harm: it only makes an order due for a look.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Iterable
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
    "doorstep_live_feed_lag_seconds", "Age of the newest record, when it came.", ["topic"]
)
CONNECTED = Gauge("doorstep_live_feed_connected", "Whether Kafka answers the live feed.")

CONSUME_AT_MOST = 500
CONSUME_WITHIN_S = 0.2
PROBE_EVERY_S = 3.0
PROBE_WITHIN_S = 1.0
AGAIN_AFTER_S = 1.0

Row = list[Any]
"""One position: driver_id, fix_at_ms, received_at_ms, lon_deg, lat_deg, accuracy_m, …"""


class _Positions(msgspec.Struct):
    v: int
    positions: list[Row]


class _Moved(msgspec.Struct, array_like=True, gc=False):
    """A position of which only the driver matters: what follows is passed over undecoded."""

    driver_id: str


class _Moves(msgspec.Struct):
    v: int
    positions: list[_Moved]


class _Update(msgspec.Struct):
    order_id: UUID
    order_seq: int
    driver_id: str | None = None


_decode_positions = msgspec.json.Decoder(_Positions).decode
_decode_moves = msgspec.json.Decoder(_Moves).decode
_decode_update = msgspec.json.Decoder(_Update).decode


@dataclass(slots=True)
class Heard:
    """What a handful of records say."""

    drivers: set[str] = field(default_factory=set)  # of those that somebody watches
    orders: dict[UUID, int] = field(default_factory=dict)
    on_orders: set[str] = field(default_factory=set)  # drivers whose order has moved on
    rows: list[Row] = field(default_factory=list)  # every position, where somebody wants them


class Feed:
    """The consumer's thread. `take` is called in it with what was heard."""

    def __init__(
        self,
        kafka: KafkaAccess,
        *,
        updates_topic: str,
        positions_topic: str,
        take: Callable[[Heard], None],
        watched: Container[str],
        wants_rows: Callable[[], bool] = lambda: False,
    ) -> None:
        self._updates_topic = updates_topic
        self._positions_topic = positions_topic
        self._take = take
        self._watched = watched
        self._wants_rows = wants_rows
        self._config = {
            **kafka.as_librdkafka_dict(),
            "group.id": "tracking-api",  # librdkafka wants one; nothing is ever committed to it
            "client.id": "tracking-api-live",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "latest",
            "fetch.wait.max.ms": 50,
            "reconnect.backoff.max.ms": 1000,  # heard again within 5 s of Kafka's return
            "topic.metadata.refresh.interval.ms": 10_000,
            "allow.auto.create.topics": False,
            "log_level": 0,  # that Kafka is away is in /readyz and the metrics
        }
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-feed", daemon=True)
        self.connected = False

    def start(self) -> None:
        """Begin to listen, now or when Kafka is there."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except KafkaException:
                self._say_connected(False)
            except Exception:  # noqa: BLE001 - a thread's boundary
                get_logger().exception("live_feed_defect")
            self._stopping.wait(AGAIN_AFTER_S)

    def _listen(self) -> None:
        """Listen until the partitions change. Raises KafkaException while Kafka is away."""
        consumer = Consumer(self._config)
        try:
            partitions = self._partitions(consumer)
            consumer.assign([TopicPartition(*one, OFFSET_END) for one in partitions])
            probe_at = time.monotonic() + PROBE_EVERY_S
            while not self._stopping.is_set():
                # `consume` waits until it has as many as it may give: for the first, then for none.
                messages = consumer.consume(1, CONSUME_WITHIN_S)
                if messages:
                    messages += consumer.consume(CONSUME_AT_MOST, 0)
                    self._take(self.read(messages))
                if time.monotonic() >= probe_at:
                    if self._probe(consumer) not in (None, partitions):
                        return
                    probe_at = time.monotonic() + PROBE_EVERY_S
        finally:
            consumer.close()

    def _probe(self, consumer: Consumer) -> set[tuple[str, int]] | None:
        """Ask for the partitions. None while Kafka is away: the consumer goes on trying."""
        try:
            return self._partitions(consumer)
        except KafkaException:
            self._say_connected(False)
            return None

    def _partitions(self, consumer: Consumer) -> set[tuple[str, int]]:
        known = consumer.list_topics(timeout=PROBE_WITHIN_S).topics
        found = {
            (name, number)
            for name in (self._updates_topic, self._positions_topic)
            for number in (known[name].partitions if name in known else ())
        }
        self._say_connected(
            {name for name, _ in found} == {self._updates_topic, self._positions_topic}
        )
        return found

    def _say_connected(self, connected: bool) -> None:
        self.connected = connected
        CONNECTED.set(connected)

    def read(self, messages: Iterable[Message]) -> Heard:
        """Read records. What can't be read is counted and passed over."""
        heard = Heard()
        wants_rows = self._wants_rows()
        for message in messages:
            topic = message.topic() or ""
            if message.error():
                RECORDS.labels(topic, "error").inc()
                continue
            try:
                if topic == self._updates_topic:
                    update = _decode_update(message.value() or b"")
                    known_seq = heard.orders.get(update.order_id, 0)
                    heard.orders[update.order_id] = max(known_seq, update.order_seq)
                    if update.driver_id is not None:
                        heard.on_orders.add(update.driver_id)
                elif wants_rows:
                    rows = _decode_positions(message.value() or b"").positions
                    heard.drivers.update(row[0] for row in rows if row[0] in self._watched)
                    heard.rows += rows
                else:
                    moves = _decode_moves(message.value() or b"").positions
                    heard.drivers.update(
                        one.driver_id for one in moves if one.driver_id in self._watched
                    )
            except (msgspec.DecodeError, IndexError, TypeError):
                RECORDS.labels(topic, "unreadable").inc()
                continue
            RECORDS.labels(topic, "heard").inc()
            _, made_ms = message.timestamp()
            LAG_S.labels(topic).set(max(0.0, time.time() - made_ms / 1000))
        return heard
