"""Publishes newly committed positions to the live feed: best effort, bounded, without blocking.

The fix is already committed; the driver's next one replaces a position that is lost here. An
unreachable broker only increments a counter.
"""

from __future__ import annotations

import json
import logging
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from prometheus_client import Counter

from doorstep.fix import Fix
from doorstep.kafka.access import KafkaAccess

QUEUE_RECORDS = 1000  # 200 B each: at most 200 KB are queued
MESSAGE_TIMEOUT_MS = 3000  # an older position is outdated
FLUSH_TIMEOUT_S = 1  # at the end; below uvicorn's 5 s for requests under way

_POSITIONS = Counter(
    "doorstep_driver_api_positions",
    "Positions sent to the live feed, by outcome.",
    ["outcome"],
)


class PositionPublisher(Protocol):
    """Publishes newly committed positions."""

    def publish(self, driver_id: str, fix: Fix, received_at_ms: int) -> None:
        """Publish one driver's newest position. Never blocks, never fails."""

    def close(self) -> None:
        """Flush briefly, then stop."""


class KafkaPositions:
    """Publishes to Kafka's topic tracking-positions."""

    def __init__(self, kafka: KafkaAccess, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                **kafka.as_librdkafka_dict(),
                "partitioner": "murmur2_random",
                "acks": 1,
                "linger.ms": 20,
                "queue.buffering.max.messages": QUEUE_RECORDS,
                "message.timeout.ms": MESSAGE_TIMEOUT_MS,
                "log.connection.close": False,
                "reconnect.backoff.max.ms": 5000,
            },
            logger=_silent_logger(),
        )

    def publish(self, driver_id: str, fix: Fix, received_at_ms: int) -> None:
        value = pack_position(driver_id, fix, received_at_ms)
        try:
            self._producer.produce(self._topic, value, key=driver_id, on_delivery=_count)
            self._producer.poll(0)
        except (BufferError, KafkaException):
            _POSITIONS.labels("dropped").inc()

    def flush(self, timeout_s: float) -> None:
        """Wait until Kafka has confirmed every position, or the time is over."""
        self._producer.flush(timeout_s)

    def close(self) -> None:
        self.flush(FLUSH_TIMEOUT_S)


def pack_position(driver_id: str, fix: Fix, received_at_ms: int) -> bytes:
    """Encode one record of tracking-positions with one position."""
    position = [
        driver_id,
        round(fix.fix_at.timestamp() * 1000),
        received_at_ms,
        fix.lon_deg,
        fix.lat_deg,
        fix.accuracy_m,
        fix.speed_mps,
        fix.heading_deg,
    ]
    return json.dumps({"v": 1, "positions": [position]}, separators=(",", ":")).encode()


def _count(error: KafkaError | None, _: Message) -> None:
    _POSITIONS.labels("dropped" if error else "published").inc()


def _silent_logger() -> logging.Logger:
    """Silence librdkafka, which logs every failed connection attempt: the counter has them."""
    logger = logging.getLogger("driver_api.kafka")
    logger.setLevel(logging.CRITICAL)
    return logger
