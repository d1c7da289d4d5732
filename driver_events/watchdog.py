"""Notices what a consumer does not: a recreated topic or a fault of its own stalls it silently."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from driver_events import metrics
from driver_events.consumer import NOWHERE, TopicIdentity

EVERY_S = 5.0
STALLED_S = 10.0  # an answer of Kafka's takes 0.05 s


class WatchedPartition(Protocol):
    """What the watchdog asks of the source."""

    emptied_at: float

    def identify(self) -> TopicIdentity:
        """Which topic is there. Raises KafkaUnavailable."""

    def behind(self) -> Mapping[int, tuple[int, int]]:
        """Where each open partition goes on, and where it ends. Raises KafkaUnavailable."""


class Watchdog:
    """Compares the topic that is read with the one that is there, and its partitions' ends with us.

    A partition is stalled when it has had more for us for a while, and we have taken all that was
    fetched since, and none of it was this one's.
    """

    def __init__(
        self,
        source: WatchedPartition,
        current: Callable[[], TopicIdentity],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._current = current
        self._clock = clock
        self._waiting: dict[tuple[int, int], float] = {}  # (partition, offset): since when
        self._lock = threading.Lock()
        self._alarm: str | None = None

    def look(self) -> bool:
        """Look once. Raises KafkaUnavailable."""
        there = self._source.identify()
        if self._current() not in (NOWHERE, there):
            self._raise("topic_recreated")
        elif self._finds_stalled(self._source.behind()):
            self._raise("partition_stalled")
        return False

    def _finds_stalled(self, behind: Mapping[int, tuple[int, int]]) -> bool:
        now_s = self._clock()
        metrics.LAG.clear()
        for partition, (offset, end) in behind.items():
            metrics.LAG.labels(str(partition)).set(max(0, end - offset))
        lagging = [(one, offset) for one, (offset, end) in behind.items() if end > offset]
        self._waiting = {one: self._waiting.get(one, now_s) for one in lagging}
        return any(
            now_s - since >= STALLED_S and self._source.emptied_at > since + STALLED_S / 2
            for since in self._waiting.values()
        )

    def _raise(self, why: str) -> None:
        with self._lock:
            self._alarm = why
        self._waiting.clear()

    def take_alarm(self) -> str | None:
        """Say why the source has to start over, if it has to; once."""
        with self._lock:
            alarm, self._alarm = self._alarm, None
        return alarm
