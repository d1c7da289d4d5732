"""Detects recreated topics and stalled partitions, which a consumer does not report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from driver_events import metrics
from driver_events.consumer import UNKNOWN_TOPIC, TopicIdentity

EVERY_S = 5.0
STALLED_S = 10.0  # a fetch takes 0.05 s


class WatchedConsumer(Protocol):
    """The part of PartitionConsumer that the watchdog reads."""

    drained_at_s: float

    def identify(self) -> TopicIdentity:
        """Read the topic's identity. Raises KafkaUnavailable."""

    def end_offsets(self) -> Mapping[int, tuple[int, int]]:
        """Return (next offset, end offset) of each partition. Raises KafkaUnavailable."""


class Watchdog:
    """Compares the topic's identity and end offsets with what the consumer reads.

    A partition is stalled when it has had unread records for a while during which the consumer has
    drained its fetch queue without advancing there.
    """

    def __init__(
        self,
        consumer: WatchedConsumer,
        current: Callable[[], TopicIdentity],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._current = current
        self._clock = clock
        self._lagging_since: dict[tuple[int, int], float] = {}  # (partition, offset): since
        self._lock = threading.Lock()
        self._alarm: str | None = None

    def check(self) -> bool:
        """Check once. Raises KafkaUnavailable."""
        current = self._consumer.identify()
        if self._current() not in (UNKNOWN_TOPIC, current):
            self._raise("topic_recreated")
        elif self._has_stalled(self._consumer.end_offsets()):
            self._raise("partition_stalled")
        return False

    def _has_stalled(self, end_offsets: Mapping[int, tuple[int, int]]) -> bool:
        now_s = self._clock()
        metrics.LAG.clear()
        for partition, (offset, end) in end_offsets.items():
            metrics.LAG.labels(str(partition)).set(max(0, end - offset))
        lagging = [(one, offset) for one, (offset, end) in end_offsets.items() if end > offset]
        self._lagging_since = {one: self._lagging_since.get(one, now_s) for one in lagging}
        return any(
            now_s - since >= STALLED_S and self._consumer.drained_at_s > since + STALLED_S / 2
            for since in self._lagging_since.values()
        )

    def _raise(self, reason: str) -> None:
        with self._lock:
            self._alarm = reason
        self._lagging_since.clear()

    def pop_alarm(self) -> str | None:
        """Return and clear the reason why the consumer must rejoin, if any."""
        with self._lock:
            alarm, self._alarm = self._alarm, None
        return alarm
