"""Devices that send far too much: counted and named, never refused, for their fixes are good.

MQTT has no answer that says "slow down", and the broker can't count per device; driver_api, which
has one, refuses with 429 by the same numbers.
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

FIXES_PER_S = 5.0  # of one device, for long
BURST_FIXES = 1000  # what a phone resends after an hour without a network: 3,600 s / 4 s = 900
WINDOW_S = 3600.0  # so what stays unnoticed is below 5 + 1000 / 3600 = 5.3 a second
CHECK_EVERY_S = 5.0
MOST_NAMED = 10  # in one log event

_driver_id_of = itemgetter(1)


class RateMonitor:
    """Counts fixes per device, an hour at a time: some 50 ns a fix."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._log = get_logger()
        self._check_at = clock() + CHECK_EVERY_S
        self._begin()

    def _begin(self) -> None:
        self._began_s = self._clock()
        self._counts: Counter[str] = Counter()
        self._chatty: set[str] = set()
        self._arrivals: tuple[datetime, datetime] | None = None

    def note(self, rows: Sequence[IncomingRow]) -> None:
        """Count a batch."""
        if not rows:
            return
        self._counts.update(map(_driver_id_of, rows))
        first, last = rows[0][5], rows[-1][5]
        known = self._arrivals or (first, last)
        self._arrivals = (min(known[0], first), max(known[1], last))

    def check(self) -> None:
        """Every 5 s, look for devices over the limit; each is counted once an hour."""
        now_s = self._clock()
        if now_s < self._check_at:
            return
        self._check_at = now_s + CHECK_EVERY_S
        # What waited in Kafka comes all at once: then the time in which it arrived counts.
        first, last = self._arrivals or (None, None)
        waited_s = (last - first).total_seconds() if first and last else 0.0
        allowed = BURST_FIXES + FIXES_PER_S * max(now_s - self._began_s, waited_s)
        found = {one for one, count in self._counts.items() if count > allowed} - self._chatty
        if found:
            metrics.CHATTY.inc(len(found))
            self._log.warning("chatty_devices", drivers=sorted(found)[:MOST_NAMED], all=len(found))
            self._chatty |= found
        if now_s - self._began_s > WINDOW_S:
            self._begin()
