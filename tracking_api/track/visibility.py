"""One order under way, as its viewer may see it. Pure.

The database decides what that is (docs/explanation/privacy.md): nothing here holds a fix that the
viewer may not see. `now` is the database's clock, read in the same statement.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

import msgspec

Freshness = Literal["live", "recent", "stale", "lost"]

FINAL_STATES = ("delivered", "cancelled", "failed")

# A device under way reports every 4 s and at least every 30 s.
LIVE_WITHIN_S = 15  # three reports of 4 s missed
RECENT_WITHIN_S = 60  # two silent periods of 30 s
STALE_WITHIN_S = 300  # a tunnel, a lift, a cellar


class TrackLink(NamedTuple):
    """Who looks at an order: the holder of a customer's token, or staff, who have none here."""

    order_id: UUID
    token_sha256: bytes | None = None

    @property
    def is_staff(self) -> bool:
        """Whether staff look."""
        return self.token_sha256 is None


class EstimateKey(NamedTuple):
    """What an estimate of arrival holds for: the order's newest event, and the driver's fix."""

    order_seq: int
    fix_at: datetime


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


class OrderPlan(msgspec.Struct, frozen=True):
    """What is known of an order's times before a courier is on the way."""

    created_at: datetime
    preparation_s: float | None = None  # usual, of the restaurant
    ready_at: datetime | None = None
    scheduled_for: datetime | None = None


class Notice(msgspec.Struct, frozen=True, array_like=True):
    """A message to an order's customer besides its states: `late`, or `nearby`."""

    order_seq: int
    kind: str
    occurred_at: datetime


class Notices(msgspec.Struct, frozen=True, array_like=True):
    """The notices of an order, and the end of its promised window if it is late."""

    found: list[Notice]
    late_after: datetime | None

    @property
    def nearby_at(self) -> datetime | None:
        """Since when the courier is nearby, with the present assignment."""
        times = [one.occurred_at for one in self.found if one.kind == "nearby"]
        return times[-1] if times else None


NO_NOTICES = Notices([], None)


@dataclass(frozen=True, slots=True)
class OtherDelivery:
    """Another customer's stop is the courier's next one: all that this customer learns.

    Multiples of 5 minutes; None before the first estimate.
    """

    earliest_at: datetime | None
    latest_at: datetime | None


@dataclass(frozen=True, slots=True)
class TrackedOrder:
    """An order under way, with what its viewer may see of the driver.

    `position` is the newest fix that may be shown, `trail` are the fixes before it, oldest first.
    `driver_id` and `assigned_at` are of the assignment whose viewer may look now; `driver_id` is
    never part of an answer. `pace` is the speed-up of a demo's clock. `is_trail_omitted` says that
    the reader holds an estimate for this event and fix, so the trail was not read. `is_shared`: the
    viewer has a link that the customer shares, and sees less.
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
    position: Position | None
    assigned_at: datetime | None = None
    driver_id: str | None = None
    pace: float = 1.0
    trail: list[TrailPoint] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    is_trail_omitted: bool = False
    city: str | None = None  # of the restaurant; None outside all cities
    plan: OrderPlan | None = None
    is_shared: bool = False
    other_delivery: OtherDelivery | None = None  # which comes first; only for customers
    pin: str | None = None  # for its customer only
    ended_reason: str | None = None
    has_photo: bool = False
    notices: Notices = NO_NOTICES

    @property
    def late_by_s(self) -> int | None:
        """By how much the promise is missed, until now or the end. None if it is not."""
        late_after = self.notices.late_after
        if late_after is None:
            return None
        until = self.events[-1].occurred_at if self.state in FINAL_STATES else self.now
        return max(0, round((until - late_after).total_seconds()))


@dataclass(frozen=True, slots=True)
class OrderPoll:
    """What the hub polls: an order's newest event number, the driver and position to show now."""

    now: datetime
    order_id: UUID
    order_seq: int
    driver_id: str | None
    position: Position | None


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
