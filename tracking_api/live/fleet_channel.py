"""The fleet's stream for staff: every driver's newest position, and what a viewport shows of it.

Positions come from the feed as they are committed. Drivers whose order changed are read by id. The
rest (duty, battery) comes from a scan through all drivers, a page per second, while there are
viewers. Each second every viewport gets the drivers that changed in it. A viewport with too many
drivers is divided into cells instead, each with its count and its drivers' mean place.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from prometheus_client import Gauge

from doorstep.errors import DoorstepError
from doorstep.telemetry import get_logger
from tracking_api.fleet.presence import LOST_AFTER_S, MOVING_MPS, SILENT_AFTER_S
from tracking_api.fleet.queries import POSITION_COLUMNS, FleetStore
from tracking_api.fleet.viewports import Box
from tracking_api.live.feed import PackedPosition
from tracking_api.live.fleet_index import Counts, FleetIndex, Mask, cluster
from tracking_api.live.frames import Frame
from tracking_api.live.viewer import Viewer

VIEWERS = Gauge("doorstep_live_fleet_viewers", "Viewers of the fleet.")

PUSH_INTERVAL_S = 1.0
PAGE_ROWS = 5000  # per second: a scan of 100,000 drivers takes 20 s
FRESH_S = 6.0  # a further viewer that comes within this time needs no new scan
OVERLAP_MS = 60_000  # a removal is dated before its commit
DEFAULT_DRIVERS = 2000  # single ones in a viewport; more are clustered
MAX_DRIVERS = 20_000  # single ones that a viewer may request: a snapshot of 3 MB
CLUSTER_COLUMNS = ["lon_deg", "lat_deg", "count"]

_encode = msgspec.json.Encoder().encode
LIMITS = {"silent_after_s": SILENT_AFTER_S, "lost_after_s": LOST_AFTER_S, "moving_mps": MOVING_MPS}


class Viewport:
    """One viewer's box, and what was sent to it."""

    __slots__ = ("box", "counts", "dense", "max_drivers", "sent", "sent_tick", "viewer")

    def __init__(self, viewer: Viewer, box: Box, max_drivers: int) -> None:
        self.viewer = viewer
        self.box = box
        self.max_drivers = max_drivers
        self.counts: Counts = {}
        self.sent_tick = 0  # changes up to this tick are sent
        self.dense = False
        self.sent: Mask = np.zeros(0, np.bool_)  # the drivers that the viewer has


class FleetChannel:
    """Every driver's row while there are viewers, and their viewports."""

    def __init__(self, store: FleetStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._tick = 1
        self._at_ms = 0
        self._opening = asyncio.Lock()
        self._arriving = 0  # viewers that are about to subscribe
        self._viewports: dict[Viewer, Viewport] = {}
        self._clear()

    def _clear(self) -> None:
        self.index = FleetIndex()
        self._read_s = float("-inf")
        self._scanned_to = ""  # the last driver of the scan's last page; empty: start again
        self._unread: set[str] = set()  # drivers to read by id
        self._counts: Counts = {}

    @property
    def is_watched(self) -> bool:
        """Whether there are viewers, or one is about to subscribe."""
        return bool(self._viewports) or self._arriving > 0

    def positions_changed(self, positions: Iterable[PackedPosition]) -> None:
        """Apply positions of tracking-positions."""
        for position in positions:
            if not self.index.update_position(position):
                self._unread.add(position[0])

    def orders_changed(self, order_ids: Iterable[object], driver_ids: Iterable[str]) -> None:
        """Read these orders' drivers by id: the present ones and those that the index has."""
        if self.is_watched:
            self._unread.update(driver_ids)
            previous = (self.index.driver_of(str(order_id)) for order_id in order_ids)
            self._unread.update(one for one in previous if one is not None)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Read the whole fleet for a viewer that is about to subscribe, and keep it for them."""
        self._arriving += 1
        try:
            async with self._opening:
                await self._read_all()
            yield
        finally:
            self._arriving -= 1
            self._drop_if_unwatched()

    async def _read_all(self) -> None:
        if self._clock() - self._read_s <= FRESH_S:
            return
        self._scanned_to = ""
        await self.read()
        while self._scanned_to:
            await self.read()
        # 100,000 rows would make each full collection take 0.2 s. They are in no cycle, so
        # reference counting frees them.
        gc.collect(1)
        gc.freeze()

    def subscribe(self, viewer: Viewer, box: Box, max_drivers: int = DEFAULT_DRIVERS) -> None:
        """Send a viewer its viewport, with at most so many single drivers, and all changes."""
        viewport = self._viewports[viewer] = Viewport(viewer, box, max_drivers)
        VIEWERS.set(len(self._viewports))
        self._update_index()
        self._push_viewport(viewport, is_snapshot=True)
        self._tick += 1  # later changes are new to this viewer

    def unsubscribe(self, viewer: Viewer) -> None:
        """Remove a viewer; after the last one, drop all rows."""
        self._viewports.pop(viewer, None)
        VIEWERS.set(len(self._viewports))
        self._drop_if_unwatched()

    def _drop_if_unwatched(self) -> None:
        if not self.is_watched:
            self._clear()
            gc.unfreeze()

    async def run(self) -> None:
        """Read and push changes until cancelled."""
        while True:
            await asyncio.sleep(PUSH_INTERVAL_S)
            if not self._viewports:
                continue
            try:
                with suppress(DoorstepError):  # positions continue while the database is away
                    await self.read()
                self.push()
            except Exception:  # noqa: BLE001 - the task's boundary
                get_logger().exception("live_fleet_defect")

    async def read(self) -> None:
        """Read drivers whose order changed, the scan's next page, and who was removed."""
        index = self.index
        driver_ids = [self._unread.pop() for _ in range(min(len(self._unread), PAGE_ROWS))]
        try:
            named = (await self._store.read_fleet_drivers(driver_ids))[1] if driver_ids else []
            at_ms, page = await self._store.read_fleet_page(self._scanned_to, PAGE_ROWS)
            since_ms = (self._at_ms or at_ms) - OVERLAP_MS
            removed = await self._store.read_removed_drivers(since_ms)
        except BaseException:
            if self.index is index:
                self._unread.update(driver_ids)
            raise
        if self.index is not index:
            return  # the last viewer left meanwhile
        self._scanned_to = page[-1][0] if len(page) == PAGE_ROWS else ""
        self._at_ms, self._read_s = at_ms, self._clock()
        for row in chain(named, page):
            index.upsert(row)
        for driver_id in removed:
            index.remove(driver_id)

    def push(self) -> None:
        """Send every viewport what has changed since its last frame."""
        if not self._viewports:
            return
        self._update_index()
        for viewport in list(self._viewports.values()):
            self._push_viewport(viewport, is_snapshot=False)
        self._tick += 1

    def _update_index(self) -> None:
        self.index.flush(self._tick)
        self._counts = self.index.counts(self._now_ms)

    @property
    def _now_ms(self) -> int:
        return self._at_ms + round(1000 * (self._clock() - self._read_s))

    def _push_viewport(self, viewport: Viewport, *, is_snapshot: bool) -> None:
        viewer, index = viewport.viewer, self.index
        if viewer.paused:
            return  # it gets all changes at once when it resumes
        inside = index.inside(viewport.box)
        total = int(np.count_nonzero(inside))
        dense = total > viewport.max_drivers
        is_snapshot = is_snapshot or dense != viewport.dense
        sent = np.zeros(len(inside), np.bool_) if dense else inside
        if dense:
            places = index.lon_deg[inside], index.lat_deg[inside]
            body: dict[str, Any] = {"clusters": cluster(*places, viewport.box)}
        elif is_snapshot:
            body = {"drivers": index.rows_of(inside), "gone": []}
        else:
            before = np.zeros(len(inside), np.bool_)
            before[: len(viewport.sent)] = viewport.sent
            changed = inside & ((index.changed_tick > viewport.sent_tick) | ~before)
            gone = sorted(row[0] for row in index.rows_of(before & ~inside))
            body = {"drivers": index.rows_of(changed), "gone": gone}
        counts_changed, viewport.counts = viewport.counts != self._counts, self._counts
        viewport.sent, viewport.dense, viewport.sent_tick = sent, dense, self._tick
        has_changes = dense or counts_changed or body["drivers"] or body["gone"]
        if not (has_changes or is_snapshot):
            return
        head: dict[str, Any] = {"at_ms": self._now_ms, "total": total}
        if is_snapshot:
            head |= {"columns": POSITION_COLUMNS, "cluster_columns": CLUSTER_COLUMNS}
            head["presence"] = LIMITS
        if is_snapshot or counts_changed:
            head["counts"] = self._counts
        viewer.send_latest(Frame("snapshot" if is_snapshot else "drivers", _encode(head | body)))
