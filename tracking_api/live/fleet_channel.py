"""The fleet for staff: every driver's newest position, and what of it a viewport shows.

Positions come from the feed as they are committed, and so does word of whose order has moved on:
those drivers are read by name. The rest of what the database knows (who is on a break, a battery)
comes from a walk through all drivers, so many a second and never more, and only while somebody
looks. Each second every viewport gets what moved in it; where that would be too much, the viewport
is divided into cells instead, each with its count and its drivers' mean place.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
from prometheus_client import Gauge

from doorstep.errors import DoorstepError
from doorstep.telemetry import get_logger
from tracking_api.fleet.presence import LOST_AFTER_S, MOVING_MPS, SILENT_AFTER_S
from tracking_api.fleet.queries import POSITION_COLUMNS, FleetStore, Row
from tracking_api.fleet.viewports import Box
from tracking_api.live.fleet_index import Counts, FleetIndex, Mask, clusters
from tracking_api.live.frames import Frame
from tracking_api.live.viewer import Viewer

WATCHING = Gauge("doorstep_live_fleet_viewers", "Viewers of the fleet.")

TELL_EVERY_S = 1.0
ROWS_A_READ = 5000  # a second: 100,000 drivers are walked through in 20 s, 5,000 each second
FRESH_S = 6.0  # what was read by then is good for one more viewer
USUAL_DRIVERS = 2000  # in one viewport, one by one; more are clustered
MOST_DRIVERS = 20_000  # that a viewer may ask for: a snapshot of 3 MB
CLUSTER_COLUMNS = ["lon_deg", "lat_deg", "count"]

_encode = msgspec.json.Encoder().encode
LIMITS = {"silent_after_s": SILENT_AFTER_S, "lost_after_s": LOST_AFTER_S, "moving_mps": MOVING_MPS}


class Viewport:
    """One viewer and what it has been told."""

    __slots__ = ("box", "counts", "dense", "most", "seen", "told_to", "viewer")

    def __init__(self, viewer: Viewer, box: Box, most: int) -> None:
        self.viewer = viewer
        self.box = box
        self.most = most
        self.counts: Counts = {}
        self.told_to = 0  # which changes it has been told of
        self.dense = False
        self.seen: Mask = np.zeros(0, np.bool_)


class FleetChannel:
    """Every driver, as far as is known, while somebody looks."""

    def __init__(self, store: FleetStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._tick = 1
        self._at_ms = 0
        self._opening = asyncio.Lock()
        self._viewports: dict[Viewer, Viewport] = {}
        self._forget()

    def _forget(self) -> None:
        self.roster = FleetIndex()
        self._read_at = float("-inf")
        self._after = ""  # how far the walk through all drivers has come
        self._named: set[str] = set()  # who is to be read out of turn
        self._counts: Counts = {}

    @property
    def is_watched(self) -> bool:
        """Whether anybody looks, or is about to: otherwise nothing is kept."""
        return bool(self._viewports) or self._opening.locked()

    def hear(self, positions: Iterable[Row]) -> None:
        """Take positions as tracking-positions has them."""
        for position in positions:
            if not self.roster.move(position):
                self._named.add(position[0])

    def hear_orders(self, order_ids: Iterable[object], driver_ids: Iterable[str]) -> None:
        """These orders have moved on, with these drivers; their last one may be another."""
        if self.is_watched:
            self._named.update(driver_ids)
            carriers = (self.roster.carrier_of(str(order_id)) for order_id in order_ids)
            self._named.update(one for one in carriers if one is not None)

    async def open(self) -> None:
        """Know the whole fleet, before a first viewer comes in."""
        async with self._opening:
            if self._clock() - self._read_at <= FRESH_S:
                return
            self._after = ""
            await self.read()
            while self._after:
                await self.read()
            # 100,000 rows would make each full collection a stall of 0.2 s. They are in no circle:
            # they go when nothing refers to them, with the collector or without.
            gc.collect(1)
            gc.freeze()

    def enter(self, viewer: Viewer, box: Box, most: int = USUAL_DRIVERS) -> None:
        """Show a viewer its viewport, with at most so many drivers one by one."""
        viewport = self._viewports[viewer] = Viewport(viewer, box, most)
        WATCHING.set(len(self._viewports))
        self._catch_up()
        self._tell(viewport, everything=True)
        self._tick += 1  # what changes from now on is new to it

    def leave(self, viewer: Viewer) -> None:
        """A viewer is gone; with the last one all that is known."""
        self._viewports.pop(viewer, None)
        WATCHING.set(len(self._viewports))
        if not self.is_watched:
            self._forget()
            gc.unfreeze()  # what was in a circle by chance may be collected again

    async def run(self) -> None:
        """Tell every viewport what moved in it, for ever."""
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            if not self._viewports:
                continue
            try:
                await self.read()
            except DoorstepError:
                pass  # positions go on; states are read when the database is back
            except Exception:  # noqa: BLE001 - the task goes on
                get_logger().exception("live_fleet_defect")
            self.tell()

    async def read(self) -> None:
        """Read whose order has moved on, and the next part of the walk through all drivers."""
        if named := [self._named.pop() for _ in range(min(len(self._named), ROWS_A_READ))]:
            _, rows = await self._store.read_fleet_drivers(named)
            self._take(rows)
        at_ms, rows = await self._store.read_fleet_page(self._after, ROWS_A_READ)
        self._after = rows[-1][0] if len(rows) == ROWS_A_READ else ""
        self._at_ms, self._read_at = at_ms, self._clock()
        self._take(rows)

    def _take(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.roster.take(row)

    def tell(self) -> None:
        """Tell every viewport what has changed since it was told last."""
        self._catch_up()
        for viewport in list(self._viewports.values()):
            self._tell(viewport, everything=False)
        self._tick += 1

    def _catch_up(self) -> None:
        self.roster.catch_up(self._tick)
        self._counts = self.roster.counts(self._now_ms)

    @property
    def _now_ms(self) -> int:
        return self._at_ms + round(1000 * (self._clock() - self._read_at))

    def _tell(self, viewport: Viewport, *, everything: bool) -> None:
        viewer, roster = viewport.viewer, self.roster
        if viewer.paused:
            return  # told of it all later, when it reads again
        inside = roster.inside(viewport.box)
        total = int(np.count_nonzero(inside))
        dense = total > viewport.most
        everything = everything or dense != viewport.dense
        now_in = np.zeros(len(inside), np.bool_) if dense else inside
        if dense:
            places = roster.lon_deg[inside], roster.lat_deg[inside]
            body: dict[str, Any] = {"clusters": clusters(*places, viewport.box)}
        elif everything:
            body = {"drivers": roster.rows_of(inside), "gone": []}
        else:
            seen = np.zeros(len(inside), np.bool_)
            seen[: len(viewport.seen)] = viewport.seen
            moved = inside & ((roster.changed > viewport.told_to) | ~seen)
            gone = sorted(row[0] for row in roster.rows_of(seen & ~inside))
            body = {"drivers": roster.rows_of(moved), "gone": gone}
        viewport.seen, viewport.dense, viewport.told_to = now_in, dense, self._tick
        counts_moved, viewport.counts = viewport.counts != self._counts, self._counts
        quiet = not (dense or counts_moved or body["drivers"] or body["gone"])
        if quiet and not everything:
            return
        head: dict[str, Any] = {"at_ms": self._now_ms, "total": total}
        if everything:
            head |= {"columns": POSITION_COLUMNS, "cluster_columns": CLUSTER_COLUMNS}
            head["presence"] = LIMITS
        if everything or counts_moved:
            head["counts"] = self._counts
        viewer.show(Frame("snapshot" if everything else "drivers", _encode(head | body)))
