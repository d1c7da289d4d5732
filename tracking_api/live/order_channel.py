"""One order that somebody watches: what is known of it, and what was shown. No I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from tracking_api.geo import distance_m
from tracking_api.live.frames import Frame, WrittenEta, position_frame
from tracking_api.live.viewer import Viewer
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.straight_eta import OBSERVED_WITHIN_S, SEGMENT_M, estimate_arrival
from tracking_api.track.visibility import Position, TrackedOrder, TrailPoint

ENDED = ("delivered", "cancelled", "failed")
ETA_EVERY = timedelta(seconds=10)
OBSERVED_WITHIN = timedelta(seconds=OBSERVED_WITHIN_S)
TRAIL_SPOTS = 40  # 5 min at 5 m/s in steps of 30 m and more
LONGEST_REPLAY = 50  # events; an order has about ten


class OrderChannel:
    """One order with its viewers."""

    __slots__ = (
        "arriving",
        "driver_id",
        "estimate",
        "eta",
        "eta_at",
        "looked_at",
        "order_id",
        "read_at",
        "reading",
        "shown",
        "snapshots",
        "tracked",
        "trail",
        "viewers",
    )

    def __init__(self, order_id: UUID, estimate: EstimateArrival = estimate_arrival) -> None:
        self.order_id = order_id
        self.estimate = estimate
        self.viewers: set[Viewer] = set()
        self.arriving = 0  # viewers that are let in, but not there yet
        self.tracked: TrackedOrder | None = None
        self.driver_id: str | None = None  # of the open assignment, as far as is known
        self.read_at = 0.0
        self.looked_at = 0.0
        self.reading: asyncio.Task[None] | None = None
        self.snapshots: dict[bool, Frame] = {}
        self.shown: Position | None = None  # in this assignment
        self.trail: deque[TrailPoint] = deque(maxlen=TRAIL_SPOTS)
        self.eta: WrittenEta | None = None
        self.eta_at: datetime | None = None

    def usable(self, cursor: str | None) -> int | None:
        """Read a cursor: the number of an event, not too long ago. None if it isn't one."""
        if self.tracked is None or cursor is None:
            return None
        if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
            return None
        after = int(cursor)
        return after if 0 <= self.tracked.order_seq - after <= LONGEST_REPLAY else None

    def is_over_for(self, cursor: str | None) -> bool:
        """Whether the order has ended, and this cursor has seen how."""
        order = self.tracked
        return order is not None and order.state in ENDED and cursor == str(order.order_seq)

    def begin(self) -> None:
        """Take what may be seen from the order as it was just read."""
        tracked = self.tracked
        if tracked is None:
            return
        self.trail.clear()
        for spot in tracked.trail if tracked.visible else []:
            self._remember(spot)
        self.shown = tracked.visible
        self._estimate_anew(tracked)

    def move(self, spot: Position, now: datetime) -> Frame | None:
        """Take a visible position; give its frame, or None if it is not news."""
        tracked = self.tracked
        if tracked is None or (self.shown is not None and spot.fix_at <= self.shown.fix_at):
            return None
        if self.eta_at is None or now - self.eta_at >= ETA_EVERY:
            trail = [one for one in self.trail if now - one.fix_at <= OBSERVED_WITHIN]
            seen = replace(tracked, now=now, newest=spot, trail=trail)
            self._estimate_anew(seen)
        self.shown = spot
        self._remember(TrailPoint(spot.fix_at, spot.lon_deg, spot.lat_deg))
        return position_frame(spot, now, self.eta)

    def _estimate_anew(self, tracked: TrackedOrder) -> None:
        eta = self.estimate(tracked)
        self.eta, self.eta_at = WrittenEta(eta) if eta else None, tracked.now

    def _remember(self, spot: TrailPoint) -> None:
        if not self.trail or distance_m(self.trail[-1].lon_lat, spot.lon_lat) >= SEGMENT_M:
            self.trail.append(spot)
