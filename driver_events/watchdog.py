"""Notices what a consumer does not: a recreated topic stalls it silently."""

from __future__ import annotations

import threading
from collections.abc import Callable

from driver_events.source import NOWHERE, TopicIdentity

EVERY_S = 5.0


class Watchdog:
    """Compares the topic that is read with the topic that is there."""

    def __init__(
        self, identify: Callable[[], TopicIdentity], current: Callable[[], TopicIdentity]
    ) -> None:
        self._identify = identify
        self._current = current
        self._recreated = threading.Event()

    def look(self) -> bool:
        """Look once. Raises KafkaUnavailable."""
        there = self._identify()
        if self._current() not in (NOWHERE, there):
            self._recreated.set()
        return False

    def take_alarm(self) -> bool:
        """Whether the topic was found recreated since this was last asked."""
        was_set = self._recreated.is_set()
        self._recreated.clear()
        return was_set
