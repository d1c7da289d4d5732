"""The live feed: one packed record per batch. Transient: the next fix replaces a lost one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from confluent_kafka import KafkaError, Producer

from doorstep.fix.instants import EPOCH
from doorstep.kafka.access import KafkaAccess
from doorstep.store.records import IncomingRow
from driver_events import metrics
from driver_events.batch import ms_of
from driver_events.consumer import RECONNECT_MS

POSITIONS_PER_RECORD = 5000  # x 120 bytes = 600 KB: below Kafka's default limit of 1 MB

Headers = list[tuple[str, str | bytes | None]]

_encode = msgspec.json.Encoder().encode


def pack_positions(rows: Sequence[IncomingRow]) -> list[bytes]:
    """Encode committed rows, which all have a `fix_at`, as values of tracking-positions."""
    return [
        _encode({"v": 1, "positions": _positions(rows[at : at + POSITIONS_PER_RECORD])})
        for at in range(0, len(rows), POSITIONS_PER_RECORD)
    ]


def _positions(rows: Sequence[IncomingRow]) -> list[tuple[object, ...]]:
    arrived_at, arrived_ms = EPOCH, 0  # consecutive fixes often share it
    positions: list[tuple[object, ...]] = []
    for (
        _, driver_id, _, _, fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps,
        heading_deg, _, _, _
    ) in rows:  # fmt: skip
        if received_at is not arrived_at:
            arrived_at, arrived_ms = received_at, ms_of(received_at)
        fix_at_ms = ms_of(fix_at) if fix_at is not None else arrived_ms
        positions.append(
            (driver_id, fix_at_ms, arrived_ms, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg)
        )
    return positions


class LiveFeed:
    """Publishes positions without blocking a batch."""

    def __init__(
        self,
        kafka: KafkaAccess,
        topic: str,
        headers_of: Callable[[Sequence[IncomingRow]], Headers | None] = lambda _: None,
    ) -> None:
        self._topic = topic
        self._headers_of = headers_of
        self._producer = Producer(
            {
                **kafka.as_librdkafka_dict(),
                "client.id": "driver-events-positions",
                "partitioner": "murmur2_random",
                "acks": 1,
                "linger.ms": 0,
                "reconnect.backoff.max.ms": RECONNECT_MS,
                "compression.type": "lz4",
                "message.timeout.ms": 3000,  # an older position is obsolete
                "queue.buffering.max.messages": 1000,
                "log_level": 2,
            }
        )

    def publish(self, rows: Sequence[IncomingRow]) -> None:
        """Enqueue positions; those over the producer's limit are counted and dropped."""
        self._producer.poll(0)
        headers = self._headers_of(rows) or []
        for value in pack_positions(rows):
            try:
                self._producer.produce(
                    self._topic, value, on_delivery=_count_delivery, headers=headers
                )
            except BufferError:
                metrics.POSITIONS.labels("dropped").inc()

    def close(self) -> None:
        """Flush for up to 1 s."""
        self._producer.flush(1.0)


def _count_delivery(error: KafkaError | None, _message: Any) -> None:
    metrics.POSITIONS.labels("dropped" if error else "sent").inc()
