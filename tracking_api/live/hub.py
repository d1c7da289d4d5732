"""Orders with viewers, and the frames that their viewers get.

The feed reports which orders are due. A poll reads the newest event's number and the position that
may be shown, of all due links in one statement; a frame shows nothing but what a poll or a read
returned for its viewers' own link. An order with new events is read in full, once for all viewers
of the link. Idle links are polled periodically. The streams of a link that returns nothing end.

Staff and customers have a hub each, over a database role each.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import TypeVar
from uuid import UUID

from prometheus_client import Counter, Gauge

from doorstep.errors import BadLink, DoorstepError
from doorstep.telemetry import get_logger
from tracking_api.batching import BatchLoader
from tracking_api.live.connection_manager import LINK_ENDED
from tracking_api.live.frames import (
    Frame,
    end_frame,
    frames_after,
    resync_frame,
    snapshot_frame,
    turn_frame,
)
from tracking_api.live.order_channel import OrderChannel
from tracking_api.live.viewer import Viewer
from tracking_api.track.queries import TrackReader
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.straight_eta import estimate_arrival
from tracking_api.track.visibility import (
    FINAL_STATES,
    OrderPoll,
    Position,
    TrackedOrder,
    TrackLink,
)

K = TypeVar("K")

PUSHES = Counter("doorstep_live_pushes", "Frames written to viewers of orders.", ["kind"])
_SNAPSHOTS, _EVENTS, _POSITIONS = map(PUSHES.labels, ("snapshot", "order", "position"))
ORDERS = Gauge("doorstep_live_orders", "Links of orders with viewers.")

MIN_POLL_INTERVAL_S = 0.1  # a batch of fixes is committed every 0.05 s or more
MAX_POLL_INTERVAL_S = 4.0  # of an idle order: in sync again within 5 s, whatever failed
MAX_POLLED_LINKS = 1000  # in one statement
SNAPSHOT_FRESH_S = 1.0  # an older snapshot is sent without its position
COARSE_ETA_INTERVAL_S = 30.0  # the estimate behind another delivery changes once a minute
RETRY_AFTER_S = 1.0  # the database is unavailable


class Hub:
    """The orders with viewers in this process."""

    def __init__(
        self,
        store: TrackReader,
        clock: Callable[[], float] = time.monotonic,
        estimate: EstimateArrival = estimate_arrival,
    ) -> None:
        self._store = store
        self._estimate = estimate
        self._clock = clock
        # the least recently polled first
        self._channels: OrderedDict[TrackLink, OrderChannel] = OrderedDict()
        self._by_order: dict[UUID, set[OrderChannel]] = {}
        self._by_driver: dict[str, set[OrderChannel]] = {}
        self._due: set[TrackLink] = set()
        self._wake = asyncio.Event()
        self._read_track = BatchLoader(store.read_tracks)

    # -- changes reported by the feed --------------------------------------------------------

    @property
    def watched_drivers(self) -> dict[str, set[OrderChannel]]:
        """The channels by driver; the feed's thread tests which positions matter."""
        return self._by_driver

    @property
    def links(self) -> Collection[TrackLink]:
        """The links with viewers."""
        return self._channels.keys()

    def drivers_moved(self, driver_ids: Iterable[str]) -> None:
        """Make the orders of these drivers due."""
        for channel in chain.from_iterable(self._by_driver.get(one, ()) for one in driver_ids):
            self._due.add(channel.link)
        if self._due:
            self._wake.set()

    def order_changed(self, order_id: UUID, order_seq: int) -> None:
        """Make an order due if this event is new. Idempotent."""
        for channel in self._by_order.get(order_id, ()):
            if channel.tracked and order_seq > channel.tracked.order_seq:
                self._due.add(channel.link)
                self._wake.set()

    # -- viewers -----------------------------------------------------------------------------

    @asynccontextmanager
    async def open_channel(self, link: TrackLink) -> AsyncIterator[OrderChannel]:
        """Read an order for a viewer that is about to subscribe. Raises BadLink.

        Concurrent viewers of a link share one read; concurrent reads share a statement.
        """
        channel = self._channel_of(link)
        channel.pending_viewers += 1
        try:
            await asyncio.shield(self._read_once(channel))
            yield channel
        finally:
            channel.pending_viewers -= 1
            self._drop_if_unused(channel)

    @asynccontextmanager
    async def open_channels(
        self, links: Sequence[TrackLink]
    ) -> AsyncIterator[Iterator[OrderChannel]]:
        """Read the orders of many links in one statement, for viewers that are about to subscribe.

        Yields the channels of good links, one after the other.
        """
        channels = [self._channel_of(link) for link in links]
        for channel in channels:
            channel.pending_viewers += 1
        try:
            read_s = self._clock()
            found = await self._store.read_tracks(links)
            good = [channel for channel in channels if channel.link in found]
            yield (self._renewed(channel, found[channel.link], read_s) for channel in good)
        finally:
            for channel in channels:
                channel.pending_viewers -= 1
                self._drop_if_unused(channel)

    def _renewed(self, channel: OrderChannel, tracked: TrackedOrder, read_s: float) -> OrderChannel:
        """Apply a read unless a newer one was applied since it began."""
        if channel.tracked is None or read_s >= channel.read_s:
            self._apply_track(channel, tracked, read_s)
        return channel

    def _channel_of(self, link: TrackLink) -> OrderChannel:
        channel = self._channels.get(link)
        if channel is None:
            channel = self._channels[link] = OrderChannel(link, self._estimate)
            self._by_order.setdefault(link.order_id, set()).add(channel)
            channel.polled_s = self._clock()
            ORDERS.set(len(self._channels))
        return channel

    def subscribe(self, channel: OrderChannel, viewer: Viewer, cursor: str | None) -> None:
        """Send a viewer the snapshot and the events after its cursor, and all later frames."""
        for frame in self.first_frames(channel, cursor):
            viewer.send(frame)
        self.follow(channel, viewer)

    def follow(self, channel: OrderChannel, viewer: Viewer) -> None:
        """Send a viewer that has the first frames all later ones, or the last one."""
        tracked = channel.tracked
        if tracked is not None and tracked.state in FINAL_STATES:
            viewer.finish(end_frame(tracked.state))
        else:
            channel.viewers.add(viewer)

    def first_frames(self, channel: OrderChannel, cursor: str | None) -> list[Frame]:
        """Return the snapshot, and the events after a cursor. Raises BadLink."""
        tracked = channel.tracked
        if tracked is None:
            raise BadLink
        if self._clock() - channel.read_s > SNAPSHOT_FRESH_S:
            tracked = replace(tracked, position=None, trail=[])
            channel.snapshots = {}
        after = channel.parse_cursor(cursor)
        frames: list[Frame] = []
        if cursor is not None and after is None:
            frames.append(resync_frame(tracked.order_seq))
        with_id = after is None
        if with_id not in channel.snapshots:
            channel.snapshots[with_id] = snapshot_frame(tracked, self._estimate, with_id=with_id)
        frames.append(channel.snapshots[with_id])
        _SNAPSHOTS.inc()
        if after is not None:
            frames += frames_after(tracked, after, self._estimate)
        return frames

    def unsubscribe(self, channel: OrderChannel, viewer: Viewer) -> None:
        """Remove a viewer."""
        channel.viewers.discard(viewer)
        self._drop_if_unused(channel)

    def _drop_if_unused(self, channel: OrderChannel) -> None:
        is_used = channel.viewers or channel.pending_viewers
        if is_used or self._channels.get(channel.link) is not channel:
            return
        del self._channels[channel.link]
        _remove(self._by_order, channel.link.order_id, channel)
        self._due.discard(channel.link)
        self._set_driver(channel, None)
        ORDERS.set(len(self._channels))

    # -- polling -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Poll due links until cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 0.5)
            try:
                await self.poll()
            except DoorstepError:
                await asyncio.sleep(RETRY_AFTER_S)  # due links stay due
            except Exception:  # noqa: BLE001 - the task's boundary
                get_logger().exception("live_hub_defect")
                await asyncio.sleep(RETRY_AFTER_S)
            await asyncio.sleep(MIN_POLL_INTERVAL_S)

    async def poll(self) -> None:
        """Poll at most MAX_POLLED_LINKS due links, and send what is new."""
        self._wake.clear()
        links = self._take_due()
        if not links:
            return
        try:
            polls = await self._store.read_polls(links)
        except BaseException:
            self._due.update(one for one in links if one in self._channels)
            raise
        for link in links:
            channel = self._channels.get(link)
            if channel is not None:
                self._apply_poll(channel, polls.get(link))
        if self._due:
            self._wake.set()

    def _take_due(self) -> list[TrackLink]:
        now_s = self._clock()
        found = [self._due.pop() for _ in range(min(len(self._due), MAX_POLLED_LINKS))]
        found = [one for one in found if one in self._channels]
        for link in found:
            self._mark_polled(link, now_s)
        while self._channels and len(found) < MAX_POLLED_LINKS:
            link, channel = next(iter(self._channels.items()))
            if now_s - channel.polled_s < MAX_POLL_INTERVAL_S:
                break
            self._mark_polled(link, now_s)
            found.append(link)
        return found

    def _mark_polled(self, link: TrackLink, now_s: float) -> None:
        self._channels[link].polled_s = now_s
        self._channels.move_to_end(link)

    def _apply_poll(self, channel: OrderChannel, poll: OrderPoll | None) -> None:
        """Apply a poll. The same order_seq implies the same assignment. None: the link is over."""
        tracked = channel.tracked
        if tracked is None:
            return
        if poll is None:
            _finish(channel, LINK_ENDED)
        elif poll.order_seq > tracked.order_seq:
            self._read_once(channel)
        elif poll.order_seq == tracked.order_seq:
            if self._turns(channel, poll):
                self._read_once(channel)
                return
            self._set_driver(channel, poll.driver_id)
            if poll.position is not None:
                self._send_position(channel, poll.position, poll.now)

    def _turns(self, channel: OrderChannel, poll: OrderPoll) -> bool:
        """Whether the courier may no longer be shown, or may be now, or is still behind another
        delivery and it is time for the next estimate.
        """
        if (poll.driver_id is None) != (channel.driver_id is None):
            return True
        tracked = channel.tracked
        is_behind = tracked is not None and tracked.other_delivery is not None
        return is_behind and self._clock() - channel.read_s >= COARSE_ETA_INTERVAL_S

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
            tracked = await self._read_track(channel.link)
        finally:
            channel.reading = None
        if tracked is None:
            _finish(channel, LINK_ENDED)
            raise BadLink
        self._apply_track(channel, tracked, self._clock())

    def _apply_track(self, channel: OrderChannel, tracked: TrackedOrder, read_s: float) -> None:
        """Replace an order's data with what was read, and send its viewers what is new."""
        previous = channel.tracked
        if previous is not None and tracked.order_seq < previous.order_seq:
            return
        channel.tracked, channel.read_s = tracked, read_s
        channel.snapshots = {}
        new_events = [
            event for event in tracked.events if previous and event.order_seq > previous.order_seq
        ]
        has_turned = previous is not None and previous.other_delivery != tracked.other_delivery
        if previous is None or new_events or has_turned:
            channel.reset()  # what may be shown may be another driver's, or nothing
        self._set_driver(channel, tracked.driver_id)
        frames = frames_after(tracked, previous.order_seq, self._estimate) if previous else []
        for frame in frames:
            for viewer in channel.viewers:
                viewer.send(frame)
            _EVENTS.inc(len(channel.viewers))
        if tracked.state in FINAL_STATES:
            _finish(channel, end_frame(tracked.state))
        elif has_turned and not new_events:
            frame = turn_frame(tracked, self._estimate)
            for viewer in channel.viewers:
                viewer.send_latest(frame)
            _POSITIONS.inc(len(channel.viewers))
        elif not new_events and tracked.position is not None:
            self._send_position(channel, tracked.position, tracked.now)

    def _set_driver(self, channel: OrderChannel, driver_id: str | None) -> None:
        """Make new positions of this driver, and of no other, due for this order."""
        if driver_id == channel.driver_id:
            return
        if channel.driver_id is not None:
            _remove(self._by_driver, channel.driver_id, channel)
        channel.driver_id = driver_id
        if driver_id is not None:
            self._by_driver.setdefault(driver_id, set()).add(channel)


def _finish(channel: OrderChannel, last: Frame) -> None:
    for viewer in list(channel.viewers):
        viewer.finish(last)


def _remove(channels: dict[K, set[OrderChannel]], key: K, channel: OrderChannel) -> None:
    found = channels.get(key, set())
    found.discard(channel)
    if not found:
        channels.pop(key, None)


def _retrieve_exception(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # raised to waiting viewers; a later poll reads again
