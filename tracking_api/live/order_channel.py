"""One link with viewers: its order's data, and what was sent. No I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from doorstep.geo import distance_m
from tracking_api.live.frames import EtaFrames, Frame, position_frame
from tracking_api.live.viewer import Viewer
from tracking_api.track.presenters import way_of
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.straight_eta import OBSERVED_WITHIN_S, SEGMENT_M, Eta, estimate_arrival
from tracking_api.track.visibility import (
    FINAL_STATES,
    Position,
    TrackedOrder,
    TrackLink,
    TrailPoint,
)

ETA_INTERVAL = timedelta(seconds=10)
OBSERVED_WITHIN = timedelta(seconds=OBSERVED_WITHIN_S)
TRAIL_POINTS = 40  # 5 min at 5 m/s in steps of 30 m and more
MAX_REPLAYED_EVENTS = 50  # an order has about ten


class OrderChannel:
    """One link and its viewers. Fields ending in `_s` are instants of the hub's clock."""

    __slots__ = (
        "driver_id",
        "estimate",
        "eta",
        "eta_at",
        "last_position",
        "link",
        "pending_viewers",
        "polled_s",
        "read_s",
        "reading",
        "snapshots",
        "tracked",
        "trail",
        "viewers",
    )

    def __init__(self, link: TrackLink, estimate: EstimateArrival = estimate_arrival) -> None:
        self.link = link
        self.estimate = estimate
        self.viewers: set[Viewer] = set()
        self.pending_viewers = 0  # admitted, not yet subscribed
        self.tracked: TrackedOrder | None = None
        self.driver_id: str | None = None  # who may be shown, when last read
        self.read_s = 0.0
        self.polled_s = 0.0
        self.reading: asyncio.Task[None] | None = None
        self.snapshots: dict[bool, Frame] = {}
        self.last_position: Position | None = None  # sent, in this assignment
        self.trail: deque[TrailPoint] = deque(maxlen=TRAIL_POINTS)
        self.eta: EtaFrames | None = None
        self.eta_at: datetime | None = None

    def parse_cursor(self, cursor: str | None) -> int | None:
        """Return a cursor's event number. None for an invalid cursor, or one too old to replay."""
        if self.tracked is None or cursor is None:
            return None
        if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
            return None
        after = int(cursor)
        return after if 0 <= self.tracked.order_seq - after <= MAX_REPLAYED_EVENTS else None

    def has_seen_end(self, cursor: str | None) -> bool:
        """Return whether the order has ended, and this cursor is its last event."""
        order = self.tracked
        return order is not None and order.state in FINAL_STATES and cursor == str(order.order_seq)

    def reset(self) -> None:
        """Take position, trail and estimate from the order as it was just read."""
        tracked = self.tracked
        if tracked is None:
            return
        self.trail.clear()
        for point in tracked.trail:
            self._extend_trail(point)
        self.last_position = tracked.position
        self._update_eta(tracked)

    def update_position(self, position: Position, now: datetime) -> Frame | None:
        """Apply a position that may be shown; return its frame, or None if it is not newer."""
        tracked = self.tracked
        last = self.last_position
        if tracked is None or (last is not None and position.fix_at <= last.fix_at):
            return None
        route: msgspec.Raw | Literal["same"] | None = "same"
        if self.eta_at is None or self.eta is None or now - self.eta_at >= ETA_INTERVAL:
            trail = [one for one in self.trail if now - one.fix_at <= OBSERVED_WITHIN]
            eta = self._update_eta(replace(tracked, now=now, position=position, trail=trail))
            route = None if tracked.is_shared else way_of(eta)
        self.last_position = position
        self._extend_trail(TrailPoint(position.fix_at, position.lon_deg, position.lat_deg))
        return position_frame(position, now, self.eta, route)

    def _update_eta(self, tracked: TrackedOrder) -> Eta | None:
        eta = self.estimate(tracked)
        self.eta, self.eta_at = EtaFrames(eta) if eta else None, tracked.now
        return eta

    def _extend_trail(self, point: TrailPoint) -> None:
        if not self.trail or distance_m(self.trail[-1].lon_lat, point.lon_lat) >= SEGMENT_M:
            self.trail.append(point)
