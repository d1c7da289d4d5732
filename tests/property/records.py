"""What the model holds: fixes, orders, assignments and the ledgers of boots, and their geometry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from math import asin, cos, floor, radians, sin, sqrt

STATES = (
    *("created", "confirmed", "assigned", "at_restaurant", "picked_up"),
    *("arriving", "at_customer", "delivered", "cancelled", "failed"),
)
RANK = {state: rank for rank, state in enumerate(STATES)}
PROVABLE = ("at_restaurant", "picked_up", "arriving", "at_customer")
OVER = ("delivered", "cancelled", "failed")
CARRYING = ("picked_up", "arriving", "at_customer")
WAITING = ("assigned", "at_restaurant")


@dataclass(frozen=True)
class Place:
    lon_deg: float
    lat_deg: float


@dataclass(frozen=True)
class Policy:
    """The numbers of a policy, with the defaults of policy 1."""

    policy_id: int = 1
    enter_radius_m: float = 60
    dwell_min_s: float = 30
    dwell_max_s: float = 120
    dwell_spread_m: float = 25
    dwell_max_mps: float = 3
    leave_radius_m: float = 250
    leave_min_s: float = 30
    leave_max_s: float = 120
    arriving_radius_m: float = 500
    arriving_min_s: float = 8
    worst_accuracy_m: float = 200


@dataclass(frozen=True)
class Fix:
    """One copy of a fix as it arrives. `reason`: why it could not be read, or `void`."""

    driver_id: str
    boot: str | None
    seq: int | None
    fix_at: datetime | None
    received_at: datetime
    place: Place | None
    accuracy_m: float | None = None
    speed_mps: float | None = None
    heading_deg: float | None = None
    altitude_m: float | None = None
    battery: float | None = None
    reason: str | None = None
    tie: int = 0  # decides between fixes without boot and seq at one instant; any order will do

    @property
    def values(self) -> tuple[float | None, ...]:
        """What may be left out."""
        return (self.accuracy_m, self.speed_mps, self.heading_deg, self.altitude_m, self.battery)

    @property
    def identity(self) -> tuple[object, ...]:
        return (self.driver_id, self.boot, self.seq) + (self.age if self.seq is None else ())

    @property
    def content(self) -> tuple[object, ...]:
        return (self.fix_at, self.place, self.values)

    @property
    def age(self) -> tuple[datetime, str, int]:
        """The key of "newest"."""
        assert self.fix_at is not None
        return (self.fix_at, self.boot or "", self.tie if self.seq is None else self.seq)

    def at(self) -> datetime:
        assert self.fix_at is not None
        return self.fix_at

    def distance_m(self, other: Place) -> float:
        assert self.place is not None
        return distance_m(self.place, other)


@dataclass
class Assignment:
    driver_id: str
    assigned_at: datetime
    ended_at: datetime | None = None
    ended_by: str | None = None
    picked_up_at: datetime | None = None  # the first pick_up command
    stop_no: int | None = None  # of an open assignment
    # when this was the driver's next stop: half-open, the last one perhaps without an end
    visible: list[tuple[datetime, datetime | None]] = field(default_factory=list)

    def open_range(self, at: datetime) -> None:
        if self.visible and self.visible[-1][1] == at:
            at = self.visible.pop()[0]  # ranges that meet are one
        self.visible.append((at, None))

    def close_range(self, at: datetime) -> None:
        """Cut everything from an instant on."""
        self.visible = [
            (since, at if until is None else min(until, at))
            for since, until in self.visible
            if since < at
        ]


@dataclass
class Event:
    assignment_no: int
    state: str
    source: str
    driver_id: str | None
    occurred_at: datetime


@dataclass(frozen=True)
class Commanded:
    """One accepted command on an order."""

    command: str
    actor: str
    actor_id: str
    driver_id: str | None  # whom assign and reassign chose
    from_state: str
    to_state: str
    assignment_no: int
    key: str | None
    at: datetime


@dataclass
class Order:
    restaurant: Place
    customer: Place
    policy: Policy
    created_at: datetime
    state: str = "created"
    assignment_no: int = 0
    source: str = "staff"
    state_at: datetime | None = None
    ended_at: datetime | None = None
    commands: list[Commanded] = field(default_factory=list)
    assignments: dict[int, Assignment] = field(default_factory=dict)  # by number
    events: list[Event] = field(default_factory=list)

    @property
    def current(self) -> Assignment | None:
        """The open assignment."""
        found = self.assignments.get(self.assignment_no)
        return found if found and found.ended_at is None else None

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    def show(self, assignment_no: int, state: str, source: str, at: datetime) -> None:
        """Make a state visible, which is an event; what is visible already is none."""
        if (assignment_no, RANK[state]) > (self.assignment_no, RANK[self.state]):
            self.assignment_no, self.state = assignment_no, state
            self.source, self.state_at = source, at
            held = self.assignments.get(assignment_no)
            driver_id = held.driver_id if held else None
            self.events.append(Event(assignment_no, state, source, driver_id, at))


@dataclass
class Boot:
    """The ledger of one boot: which numbers are committed, which refused for good."""

    stored: set[int] = field(default_factory=set)
    rejected: set[int] = field(default_factory=set)

    def watermark(self) -> tuple[int, list[tuple[int, int]]]:
        """The highest settled number and the gaps below it, inclusive."""
        settled = sorted(self.stored | self.rejected)
        gaps = [(a + 1, b - 1) for a, b in pairwise([0, *settled]) if b > a + 1]
        return settled[-1], gaps


def pairs_apart(fixes: list[Fix], min_s: float, max_s: float | None) -> Iterator[tuple[Fix, Fix]]:
    """All pairs (a, b) with b so much later than a."""
    for a in fixes:
        for b in fixes:
            apart_s = (b.at() - a.at()).total_seconds()
            if apart_s >= min_s and (max_s is None or apart_s <= max_s):
                yield a, b


def distance_m(a: Place, b: Place) -> float:
    """Metres on the sphere (haversine)."""
    d_lat, d_lon = radians(b.lat_deg - a.lat_deg), radians(b.lon_deg - a.lon_deg)
    half = sin(d_lat / 2) ** 2
    half += cos(radians(a.lat_deg)) * cos(radians(b.lat_deg)) * sin(d_lon / 2) ** 2
    return 2 * 6_371_008.7714 * asin(sqrt(half))


def cell_of(place: Place) -> int:
    """The hundredth of a degree each way that the nearest-driver search goes by."""
    row, column = floor(place.lat_deg * 100) + 9000, floor(place.lon_deg * 100) + 18000
    return row * 36_000 + min(column, 35_999)


def resent(fix: Fix, after: timedelta) -> Fix:
    """Another copy of a fix that arrives later."""
    return replace(fix, received_at=fix.received_at + after)
