"""Reports to the database which orders are looked at: their couriers then send without delay."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from itertools import chain

from doorstep.errors import DoorstepError
from doorstep.telemetry import get_logger
from tracking_api.track.queries import TrackReader
from tracking_api.track.visibility import TrackLink

TICK_S = 1.0
REPORT_EVERY_S = 20.0  # a report holds for 60 s
MAX_LINKS = 1000  # in one statement


class WatchReporter:
    """Reports the links with streams, and those that were read with GET."""

    def __init__(
        self,
        store: TrackReader,
        streamed: Callable[[], Collection[TrackLink]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._streamed = streamed
        self._clock = clock
        self._read: set[TrackLink] = set()  # with GET since the last report
        self._reported_s: OrderedDict[TrackLink, float] = OrderedDict()  # the oldest first

    def note(self, link: TrackLink) -> None:
        """Collect a link that was read with GET."""
        self._read.add(link)

    async def run(self) -> None:
        """Report every second until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.report()
            except DoorstepError as exc:
                get_logger().warning("watch_not_reported", error=str(exc))
            except Exception:  # noqa: BLE001 - the task's boundary
                get_logger().exception("watch_reporter_defect")

    async def report(self) -> None:
        """Report the links that are new, or were last reported 20 s ago."""
        now_s = self._clock()
        while self._reported_s and now_s - next(iter(self._reported_s.values())) >= REPORT_EVERY_S:
            self._reported_s.popitem(last=False)
        looked_at = chain(self._read, self._streamed())
        due = list({link for link in looked_at if link not in self._reported_s})
        self._read.clear()
        for start in range(0, len(due), MAX_LINKS):
            links = due[start : start + MAX_LINKS]
            await self._store.report_watched(links)
            self._reported_s.update(dict.fromkeys(links, now_s))
