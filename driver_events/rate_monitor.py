"""Detects devices that send too much. Their fixes are counted and logged, never refused.

MQTT has no reply for "slow down", and the broker has no limit per device. driver_api answers 429
at the same rates.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import itemgetter

from doorstep.store.records import IncomingRow
from doorstep.telemetry import get_logger
from driver_events import metrics

FIXES_PER_S = 5.0  # of one device in the long run
BURST_FIXES = 1000  # what a phone resends after an hour without a network: 3,600 s / 4 s = 900
WINDOW_S = 3600.0  # a rate below 5 + 1000 / 3600 = 5.3 a second is not detected
CHECK_EVERY_S = 5.0
MAX_LOGGED = 10  # in one log event

_driver_id_of = itemgetter(1)


class RateMonitor:
    """Counts fixes per device and hour, at about 50 ns per fix."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._log = get_logger()
        self._check_at = clock() + CHECK_EVERY_S
        self._start_window()

    def _start_window(self) -> None:
        self._window_start_s = self._clock()
        self._counts: Counter[str] = Counter()
        self._chatty: set[str] = set()
        self._arrivals: tuple[datetime, datetime] | None = None

    def count(self, rows: Sequence[IncomingRow]) -> None:
        """Count a batch."""
        if not rows:
            return
        self._counts.update(map(_driver_id_of, rows))
        first, last = rows[0][5], rows[-1][5]
        known = self._arrivals or (first, last)
        self._arrivals = (min(known[0], first), max(known[1], last))

    def check(self) -> None:
        """Every 5 s, find devices over the limit; each is counted once an hour."""
        now_s = self._clock()
        if now_s < self._check_at:
            return
        self._check_at = now_s + CHECK_EVERY_S
        # A backlog in Kafka is read at once: then the time over which it arrived counts.
        first, last = self._arrivals or (None, None)
        waited_s = (last - first).total_seconds() if first and last else 0.0
        allowed = BURST_FIXES + FIXES_PER_S * max(now_s - self._window_start_s, waited_s)
        found = {one for one, fixes in self._counts.items() if fixes > allowed} - self._chatty
        if found:
            metrics.CHATTY.inc(len(found))
            self._log.warning("chatty_devices", drivers=sorted(found)[:MAX_LOGGED], all=len(found))
            self._chatty |= found
        if now_s - self._window_start_s > WINDOW_S:
            self._start_window()
