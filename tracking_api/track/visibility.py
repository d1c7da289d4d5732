"""One order under way, and the rule of what its customer may see. Pure.

`now` is passed in: the database's clock, read in the same statement.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

Freshness = Literal["live", "recent", "stale", "lost"]

# A device under way reports every 4 s and at least every 30 s.
LIVE_WITHIN_S = 15  # three reports of 4 s missed
RECENT_WITHIN_S = 60  # two silent periods of 30 s
STALE_WITHIN_S = 300  # a tunnel, a lift, a cellar


@dataclass(frozen=True, slots=True)
class Window:
    """[assigned_at, ended_at) of one assignment: its driver is shown only within it."""

    assigned_at: datetime
    ended_at: datetime | None

    def is_open(self, now: datetime) -> bool:
        """Whether the assignment is open."""
        return self.assigned_at <= now and (self.ended_at is None or now < self.ended_at)

    def holds(self, fix_at: datetime) -> bool:
        """Whether a fix of this instant is inside the window."""
        return self.assigned_at <= fix_at and (self.ended_at is None or fix_at < self.ended_at)


class Position(msgspec.Struct, frozen=True):
    """A driver's fix, with the columns that answers show."""

    fix_at: datetime
    received_at: datetime
    lon_deg: float
    lat_deg: float
    accuracy_m: float | None = None
    speed_mps: float | None = None
    heading_deg: float | None = None

    @property
    def lon_lat(self) -> tuple[float, float]:
        """The place, longitude first."""
        return self.lon_deg, self.lat_deg


class TrailPoint(msgspec.Struct, frozen=True, array_like=True):
    """A fix of the last minutes, as far as estimates need it."""

    fix_at: datetime
    lon_deg: float
    lat_deg: float

    @property
    def lon_lat(self) -> tuple[float, float]:
        """The place, longitude first."""
        return self.lon_deg, self.lat_deg


class Event(msgspec.Struct, frozen=True, array_like=True):
    """One state change of an order that its customer may see."""

    order_seq: int
    state: str
    source: str
    occurred_at: datetime
    assignment_no: int = 0


@dataclass(frozen=True, slots=True)
class TrackedOrder:
    """An order with its current assignment's window and the driver's newest fixes.

    `newest` is the driver's newest fix whatever its time: `visible` decides. `trail` are the
    fixes before it, inside the window, oldest first. `driver_id` is the current assignment's, and
    never part of an answer. `pace` is the speed-up of a demo's clock.
    """

    now: datetime
    order_id: UUID
    state: str
    assignment_no: int
    order_seq: int
    restaurant_name: str
    restaurant: tuple[float, float]
    destination: tuple[float, float]
    dwell_min_s: float
    window: Window | None
    newest: Position | None
    driver_id: str | None = None
    pace: float = 1.0
    trail: list[TrailPoint] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def visible(self) -> Position | None:
        """The driver's position, if it may be shown."""
        return visible_in(self.window, self.newest, self.now)


@dataclass(frozen=True, slots=True)
class OrderPoll:
    """What the hub polls: an order's newest event number, its window and the newest fix."""

    now: datetime
    order_id: UUID
    order_seq: int
    window: Window | None
    newest: Position | None

    @property
    def visible(self) -> Position | None:
        """The driver's position, if it may be shown."""
        return visible_in(self.window, self.newest, self.now)


def visible_in(window: Window | None, newest: Position | None, now: datetime) -> Position | None:
    """Return the newest position if `fix_at` and `now` are both inside the window."""
    if window is None or newest is None or not window.is_open(now):
        return None
    return newest if window.holds(newest.fix_at) else None


def age_s(fix_at: datetime, now: datetime) -> float:
    """Return a fix's age in s; 0 for a phone whose clock is ahead."""
    return max(0.0, round((now - fix_at).total_seconds(), 3))


def freshness_of(age: float) -> Freshness:
    """Classify an age in s."""
    if age <= LIVE_WITHIN_S:
        return "live"
    if age <= RECENT_WITHIN_S:
        return "recent"
    return "stale" if age <= STALE_WITHIN_S else "lost"
