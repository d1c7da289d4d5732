"""Chooses each device's sampling policy by how much its positions are needed now."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import Counter

from doorstep.store import fix_writer
from driver_events.recorder import Connection

CHANGES = Counter(
    "doorstep_driver_events_demand_changes", "Sampling policies that demand has changed"
)
EVERY_S = 2.0
EVERYBODY_EVERY_S = 60.0  # reads a row per driver


class DemandFollower:
    """Finds changes of demand in the database, which also excludes a second process."""

    def __init__(
        self,
        connection: Connection,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._on_change = on_change
        self._clock = clock
        self._everybody_s = float("-inf")

    def follow(self) -> bool:
        """Choose the policies whose demand has changed, once. Raises Unavailable."""
        everybody = self._clock() - self._everybody_s >= EVERYBODY_EVERY_S
        with self._connection.transaction() as conn:
            changed = fix_writer.follow_demand(conn, everybody=everybody)
        if everybody:
            self._everybody_s = self._clock()
        CHANGES.inc(changed)
        if changed:
            self._on_change()
        return False
