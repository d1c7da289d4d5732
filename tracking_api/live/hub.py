"""The orders that somebody watches, and what their viewers are shown.

The feed says which orders are due. A look reads the newest event's number, the window and the
driver's newest fix of all due orders in one statement, so each position is shown on knowledge that
is milliseconds old. An order with new events is read whole, once, whoever watches. An order that
nobody spoke of for a while is due by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from prometheus_client import Counter, Gauge

from doorstep.errors import BadLink, DoorstepError
from doorstep.telemetry import get_logger
from tracking_api.batching import BatchLoader
from tracking_api.live.frames import (
    end_frame,
    order_frame,
    resync_frame,
    snapshot_frame,
)
from tracking_api.live.order_channel import ENDED, OrderChannel
from tracking_api.live.viewer import Viewer
from tracking_api.track.queries import TrackStore
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.straight_eta import estimate_arrival
from tracking_api.track.visibility import OrderPoll, Position, TrackedOrder

PUSHES = Counter("doorstep_live_pushes", "Frames written to viewers of orders.", ["kind"])
_SNAPSHOTS, _EVENTS, _POSITIONS = map(PUSHES.labels, ("snapshot", "order", "position"))
WATCHED = Gauge("doorstep_live_orders", "Orders that somebody watches.")

LOOK_EVERY_S = 0.1  # at most; a batch of fixes is committed every 0.05 s or more
LOOK_AT_LEAST_EVERY_S = 4.0  # also when Kafka is silent: in sync again within 5 s, whatever broke
LOOKS_AT_ONCE = 1000  # orders in one statement
FRESH_S = 1.0  # a snapshot's position is not sent later than this after it was read


class Hub:
    """What is watched in this process."""

    def __init__(
        self,
        store: TrackStore,
        clock: Callable[[], float] = time.monotonic,
        estimate: EstimateArrival = estimate_arrival,
    ) -> None:
        self._store = store
        self._estimate = estimate
        self._clock = clock
        self._orders: OrderedDict[UUID, OrderChannel] = (
            OrderedDict()
        )  # the longest not looked at first
        self._by_driver: dict[str, OrderChannel] = {}
        self._due: set[UUID] = set()
        self._wake = asyncio.Event()
        self._read_track = BatchLoader(store.read_tracks)

    # -- what the feed says ------------------------------------------------------------------

    @property
    def watched_drivers(self) -> dict[str, OrderChannel]:
        """By driver; the feed's thread asks it which positions matter."""
        return self._by_driver

    def heard_drivers(self, driver_ids: Iterable[str]) -> None:
        """These drivers have new positions."""
        for driver_id in driver_ids:
            watched = self._by_driver.get(driver_id)
            if watched is not None:
                self._due.add(watched.order_id)
        if self._due:
            self._wake.set()

    def heard_order(self, order_id: UUID, order_seq: int) -> None:
        """This order has got this far. Heard twice, or late, it means nothing."""
        watched = self._orders.get(order_id)
        if watched and watched.tracked and order_seq > watched.tracked.order_seq:
            self._due.add(order_id)
            self._wake.set()

    # -- viewers -----------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self, order_id: UUID) -> AsyncIterator[OrderChannel]:
        """Read an order for a viewer that is about to come in. Raises BadLink.

        Viewers that come at once share one read, and orders that are opened at once a statement.
        """
        watched = self._orders.get(order_id)
        if watched is None:
            watched = self._orders[order_id] = OrderChannel(order_id, self._estimate)
            watched.looked_at = self._clock()
            WATCHED.set(len(self._orders))
        watched.arriving += 1
        try:
            await asyncio.shield(self._read_once(watched))
            yield watched
        finally:
            watched.arriving -= 1
            self._forget_if_alone(watched)

    def enter(self, watched: OrderChannel, viewer: Viewer, cursor: str | None) -> None:
        """Send a viewer its first frames: the snapshot, and what it missed after its cursor."""
        tracked = watched.tracked
        if tracked is None:
            raise BadLink
        if self._clock() - watched.read_at > FRESH_S:
            tracked = replace(tracked, newest=None, trail=[])
            watched.snapshots = {}
        after = watched.usable(cursor)
        if cursor is not None and after is None:
            viewer.tell(resync_frame(tracked.order_seq))
        with_id = after is None
        if with_id not in watched.snapshots:
            watched.snapshots[with_id] = snapshot_frame(tracked, self._estimate, with_id=with_id)
        viewer.tell(watched.snapshots[with_id])
        _SNAPSHOTS.inc()
        if after is not None:
            for event in tracked.events:
                if event.order_seq > after:
                    viewer.tell(order_frame(tracked, event, self._estimate))
        if tracked.state in ENDED:
            viewer.finish(end_frame(tracked.state))
        else:
            watched.viewers.add(viewer)

    def leave(self, watched: OrderChannel, viewer: Viewer) -> None:
        """A viewer is gone."""
        watched.viewers.discard(viewer)
        self._forget_if_alone(watched)

    def _forget_if_alone(self, watched: OrderChannel) -> None:
        if watched.viewers or watched.arriving or self._orders.get(watched.order_id) is not watched:
            return
        del self._orders[watched.order_id]
        self._due.discard(watched.order_id)
        self._index(watched, None)
        WATCHED.set(len(self._orders))

    # -- looking -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at what is due, for ever."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 0.5)
            try:
                await self.look()
            except DoorstepError:
                await asyncio.sleep(1)  # the database is away; what is due stays due
            except Exception:  # noqa: BLE001 - the task goes on
                get_logger().exception("live_hub_defect")
                await asyncio.sleep(1)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look at the orders that are due, at most LOOKS_AT_ONCE, and show what is new."""
        self._wake.clear()
        order_ids = self._take_due()
        if not order_ids:
            return
        try:
            looks = await self._store.read_polls(order_ids)
        except BaseException:
            self._due.update(one for one in order_ids if one in self._orders)
            raise
        for look in looks:
            watched = self._orders.get(look.order_id)
            if watched is not None:
                self._see(watched, look)
        if self._due:
            self._wake.set()

    def _take_due(self) -> list[UUID]:
        now = self._clock()
        found = [self._due.pop() for _ in range(min(len(self._due), LOOKS_AT_ONCE))]
        found = [one for one in found if one in self._orders]
        for order_id in found:
            self._looked(order_id, now)
        while self._orders and len(found) < LOOKS_AT_ONCE:
            order_id, watched = next(iter(self._orders.items()))
            if now - watched.looked_at < LOOK_AT_LEAST_EVERY_S:
                break
            self._looked(order_id, now)
            found.append(order_id)
        return found

    def _looked(self, order_id: UUID, now: float) -> None:
        self._orders[order_id].looked_at = now
        self._orders.move_to_end(order_id)

    def _see(self, watched: OrderChannel, look: OrderPoll) -> None:
        """Take in one look. The same order_seq means the same assignment, open as it was."""
        tracked = watched.tracked
        if tracked is None or look.order_seq < tracked.order_seq:
            return
        if look.order_seq > tracked.order_seq:
            self._read_once(watched)
        elif look.visible is not None:
            self._show(watched, look.visible, look.now)

    def _show(self, watched: OrderChannel, spot: Position, now: datetime) -> None:
        frame = watched.move(spot, now)
        if frame is None:
            return
        for viewer in watched.viewers:
            viewer.show(frame)
        _POSITIONS.inc(len(watched.viewers))

    # -- reading whole orders ----------------------------------------------------------------

    def _read_once(self, watched: OrderChannel) -> asyncio.Task[None]:
        """Read an order, or join in the reading that is under way."""
        if watched.reading is None:
            watched.reading = asyncio.create_task(self._read(watched))
            watched.reading.add_done_callback(_seen)
        return watched.reading

    async def _read(self, watched: OrderChannel) -> None:
        try:
            tracked = await self._read_track(watched.order_id)
        finally:
            watched.reading = None
        if tracked is None:
            raise BadLink
        self._take_in(watched, tracked)

    def _take_in(self, watched: OrderChannel, tracked: TrackedOrder) -> None:
        """Know an order as it was just read, and tell its viewers of what is new."""
        old = watched.tracked
        if old is not None and tracked.order_seq < old.order_seq:
            return
        watched.tracked, watched.read_at = tracked, self._clock()
        watched.snapshots = {}
        new = [event for event in tracked.events if old and event.order_seq > old.order_seq]
        if old is None or new:
            self._begin(watched, tracked)
        for event in new:
            frame = order_frame(tracked, event, self._estimate)
            for viewer in watched.viewers:
                viewer.tell(frame)
            _EVENTS.inc(len(watched.viewers))
        if tracked.state in ENDED:
            last = end_frame(tracked.state)
            for viewer in list(watched.viewers):
                viewer.finish(last)
        elif not new and tracked.visible is not None:
            self._show(watched, tracked.visible, tracked.now)

    def _begin(self, watched: OrderChannel, tracked: TrackedOrder) -> None:
        """Begin afresh with what may be seen: perhaps it is another driver now, or none."""
        open_now = tracked.window is not None and tracked.window.is_open(tracked.now)
        self._index(watched, tracked.driver_id if open_now else None)
        watched.begin()

    def _index(self, watched: OrderChannel, driver_id: str | None) -> None:
        """Make new positions of this driver, and of no other, bring this order up."""
        if watched.driver_id is not None and self._by_driver.get(watched.driver_id) is watched:
            del self._by_driver[watched.driver_id]
        watched.driver_id = driver_id
        if driver_id is not None:
            self._by_driver[driver_id] = watched


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # a viewer that waited has got it; a later look reads again
