"""Orders with viewers, and the frames that their viewers get.

The feed reports which orders are due. A poll reads the newest event's number, the window and the
driver's newest fix of all due orders in one statement, so a position is shown on data that is
milliseconds old. An order with new events is read in full, once for all its viewers. Idle orders
are polled periodically.
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
from tracking_api.live.order_channel import FINAL_STATES, OrderChannel
from tracking_api.live.viewer import Viewer
from tracking_api.track.queries import TrackStore
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.straight_eta import estimate_arrival
from tracking_api.track.visibility import OrderPoll, Position, TrackedOrder

PUSHES = Counter("doorstep_live_pushes", "Frames written to viewers of orders.", ["kind"])
_SNAPSHOTS, _EVENTS, _POSITIONS = map(PUSHES.labels, ("snapshot", "order", "position"))
ORDERS = Gauge("doorstep_live_orders", "Orders with viewers.")

MIN_POLL_INTERVAL_S = 0.1  # a batch of fixes is committed every 0.05 s or more
MAX_POLL_INTERVAL_S = 4.0  # of an idle order: in sync again within 5 s, whatever failed
MAX_POLLED_ORDERS = 1000  # in one statement
SNAPSHOT_FRESH_S = 1.0  # an older snapshot is sent without its position
RETRY_AFTER_S = 1.0  # the database is unavailable


class Hub:
    """The orders with viewers in this process."""

    def __init__(
        self,
        store: TrackStore,
        clock: Callable[[], float] = time.monotonic,
        estimate: EstimateArrival = estimate_arrival,
    ) -> None:
        self._store = store
        self._estimate = estimate
        self._clock = clock
        # the least recently polled first
        self._channels: OrderedDict[UUID, OrderChannel] = OrderedDict()
        self._by_driver: dict[str, OrderChannel] = {}
        self._due: set[UUID] = set()
        self._wake = asyncio.Event()
        self._read_track = BatchLoader(store.read_tracks)

    # -- changes reported by the feed --------------------------------------------------------

    @property
    def watched_drivers(self) -> dict[str, OrderChannel]:
        """The channels by driver; the feed's thread tests which positions matter."""
        return self._by_driver

    def drivers_moved(self, driver_ids: Iterable[str]) -> None:
        """Make the orders of these drivers due."""
        for driver_id in driver_ids:
            channel = self._by_driver.get(driver_id)
            if channel is not None:
                self._due.add(channel.order_id)
        if self._due:
            self._wake.set()

    def order_changed(self, order_id: UUID, order_seq: int) -> None:
        """Make an order due if this event is new. Idempotent."""
        channel = self._channels.get(order_id)
        if channel and channel.tracked and order_seq > channel.tracked.order_seq:
            self._due.add(order_id)
            self._wake.set()

    # -- viewers -----------------------------------------------------------------------------

    @asynccontextmanager
    async def open_channel(self, order_id: UUID) -> AsyncIterator[OrderChannel]:
        """Read an order for a viewer that is about to subscribe. Raises BadLink.

        Concurrent viewers of an order share one read; concurrent reads share a statement.
        """
        channel = self._channels.get(order_id)
        if channel is None:
            channel = self._channels[order_id] = OrderChannel(order_id, self._estimate)
            channel.polled_s = self._clock()
            ORDERS.set(len(self._channels))
        channel.pending_viewers += 1
        try:
            await asyncio.shield(self._read_once(channel))
            yield channel
        finally:
            channel.pending_viewers -= 1
            self._drop_if_unused(channel)

    def subscribe(self, channel: OrderChannel, viewer: Viewer, cursor: str | None) -> None:
        """Send a viewer the snapshot and the events after its cursor, and all later frames."""
        tracked = channel.tracked
        if tracked is None:
            raise BadLink
        if self._clock() - channel.read_s > SNAPSHOT_FRESH_S:
            tracked = replace(tracked, newest=None, trail=[])
            channel.snapshots = {}
        after = channel.parse_cursor(cursor)
        if cursor is not None and after is None:
            viewer.send(resync_frame(tracked.order_seq))
        with_id = after is None
        if with_id not in channel.snapshots:
            channel.snapshots[with_id] = snapshot_frame(tracked, self._estimate, with_id=with_id)
        viewer.send(channel.snapshots[with_id])
        _SNAPSHOTS.inc()
        if after is not None:
            for event in tracked.events:
                if event.order_seq > after:
                    viewer.send(order_frame(tracked, event, self._estimate))
        if tracked.state in FINAL_STATES:
            viewer.finish(end_frame(tracked.state))
        else:
            channel.viewers.add(viewer)

    def unsubscribe(self, channel: OrderChannel, viewer: Viewer) -> None:
        """Remove a viewer."""
        channel.viewers.discard(viewer)
        self._drop_if_unused(channel)

    def _drop_if_unused(self, channel: OrderChannel) -> None:
        is_used = channel.viewers or channel.pending_viewers
        if is_used or self._channels.get(channel.order_id) is not channel:
            return
        del self._channels[channel.order_id]
        self._due.discard(channel.order_id)
        self._set_driver(channel, None)
        ORDERS.set(len(self._channels))

    # -- polling -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Poll due orders until cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 0.5)
            try:
                await self.poll()
            except DoorstepError:
                await asyncio.sleep(RETRY_AFTER_S)  # due orders stay due
            except Exception:  # noqa: BLE001 - the task's boundary
                get_logger().exception("live_hub_defect")
                await asyncio.sleep(RETRY_AFTER_S)
            await asyncio.sleep(MIN_POLL_INTERVAL_S)

    async def poll(self) -> None:
        """Poll at most MAX_POLLED_ORDERS due orders, and send what is new."""
        self._wake.clear()
        order_ids = self._take_due()
        if not order_ids:
            return
        try:
            polls = await self._store.read_polls(order_ids)
        except BaseException:
            self._due.update(one for one in order_ids if one in self._channels)
            raise
        for poll in polls:
            channel = self._channels.get(poll.order_id)
            if channel is not None:
                self._apply_poll(channel, poll)
        if self._due:
            self._wake.set()

    def _take_due(self) -> list[UUID]:
        now_s = self._clock()
        found = [self._due.pop() for _ in range(min(len(self._due), MAX_POLLED_ORDERS))]
        found = [one for one in found if one in self._channels]
        for order_id in found:
            self._mark_polled(order_id, now_s)
        while self._channels and len(found) < MAX_POLLED_ORDERS:
            order_id, channel = next(iter(self._channels.items()))
            if now_s - channel.polled_s < MAX_POLL_INTERVAL_S:
                break
            self._mark_polled(order_id, now_s)
            found.append(order_id)
        return found

    def _mark_polled(self, order_id: UUID, now_s: float) -> None:
        self._channels[order_id].polled_s = now_s
        self._channels.move_to_end(order_id)

    def _apply_poll(self, channel: OrderChannel, poll: OrderPoll) -> None:
        """Apply a poll. The same order_seq implies the same assignment, open or not as before."""
        tracked = channel.tracked
        if tracked is None or poll.order_seq < tracked.order_seq:
            return
        if poll.order_seq > tracked.order_seq:
            self._read_once(channel)
        elif poll.visible is not None:
            self._send_position(channel, poll.visible, poll.now)

    def _send_position(self, channel: OrderChannel, position: Position, now: datetime) -> None:
        frame = channel.update_position(position, now)
        if frame is None:
            return
        for viewer in channel.viewers:
            viewer.send_latest(frame)
        _POSITIONS.inc(len(channel.viewers))

    # -- reading orders in full --------------------------------------------------------------

    def _read_once(self, channel: OrderChannel) -> asyncio.Task[None]:
        """Read an order, or join the read in progress."""
        if channel.reading is None:
            channel.reading = asyncio.create_task(self._read(channel))
            channel.reading.add_done_callback(_retrieve_exception)
        return channel.reading

    async def _read(self, channel: OrderChannel) -> None:
        try:
            tracked = await self._read_track(channel.order_id)
        finally:
            channel.reading = None
        if tracked is None:
            raise BadLink
        self._apply_track(channel, tracked)

    def _apply_track(self, channel: OrderChannel, tracked: TrackedOrder) -> None:
        """Replace an order's data with what was read, and send its viewers what is new."""
        previous = channel.tracked
        if previous is not None and tracked.order_seq < previous.order_seq:
            return
        channel.tracked, channel.read_s = tracked, self._clock()
        channel.snapshots = {}
        new_events = [
            event for event in tracked.events if previous and event.order_seq > previous.order_seq
        ]
        if previous is None or new_events:
            self._reset(channel, tracked)
        for event in new_events:
            frame = order_frame(tracked, event, self._estimate)
            for viewer in channel.viewers:
                viewer.send(frame)
            _EVENTS.inc(len(channel.viewers))
        if tracked.state in FINAL_STATES:
            last = end_frame(tracked.state)
            for viewer in list(channel.viewers):
                viewer.finish(last)
        elif not new_events and tracked.visible is not None:
            self._send_position(channel, tracked.visible, tracked.now)

    def _reset(self, channel: OrderChannel, tracked: TrackedOrder) -> None:
        """Start from what may be shown now: the driver may be another one, or none."""
        is_open = tracked.window is not None and tracked.window.is_open(tracked.now)
        self._set_driver(channel, tracked.driver_id if is_open else None)
        channel.reset()

    def _set_driver(self, channel: OrderChannel, driver_id: str | None) -> None:
        """Make new positions of this driver, and of no other, due for this order."""
        if channel.driver_id is not None and self._by_driver.get(channel.driver_id) is channel:
            del self._by_driver[channel.driver_id]
        channel.driver_id = driver_id
        if driver_id is not None:
            self._by_driver[driver_id] = channel


def _retrieve_exception(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # raised to waiting viewers; a later poll reads again
