"""A small simulated world: one courier's shift, seen through a wrong clock and a bad network.

The truth is made first: where the courier was, and when each order was whose. Then what the
platform gets: fixes dated by the phone's clock, late, twice, in bursts after an outage. A test
compares what the rule shows of the second with the first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import cos, hypot, radians
from random import Random

from hypothesis import strategies as st

from tests.property.records import Fix, Place
from tests.property.visibility import SLACK, Range, Stop

# Yesterday: there is a partition, and everything has arrived by now.
START_AT = datetime.now(tz=UTC).replace(hour=11, minute=0, second=0, microsecond=0) - timedelta(1)
CENTRE = Place(11.2556, 43.7696)
SPEED_MPS = 8.0
DRIVER = "d1"

# Metres east and north. Two doors are in one house, two are a street apart, the rest a ride apart.
CARRIED_ALONG = 1000  # added to the number of an order for the one that comes along
DOORS = ((0, 0), (0, 0), (120, 0), (400, 0), (900, 300), (-700, 500))
RESTAURANTS = ((300, 200), (130, 60), (-400, -300))
OFFSETS_S = (0.0, 0.0, 0.3, 5.0, 30.0, 100.0, 119.0, 150.0, 86_400.0, -0.3, -5.0, -100.0)
DELAYS_S = ((0.05, 0.9), (0.05, 0.9), (1.0, 6.0), (0.1, 40.0))

Point = tuple[float, float]


@dataclass(frozen=True)
class Job:
    """One order as it will go, or two if `stacked`: both are taken along, the first goes first."""

    idle_s: int  # before it is assigned
    door: int
    restaurant: int
    stay_s: int  # at the door
    press_s: int  # "delivered" this long after the arrival; below 0 on the way
    end: str  # deliver, again (given up half-way to the restaurant, and assigned again), cancel
    stacked: int | None  # the door of a second order
    swapped: bool  # for a minute another customer's stop is the next one
    walk_s: int  # afterwards the courier stands at the door for so long


@dataclass(frozen=True)
class Phone:
    """What stands between the truth and the platform. Instants are parts of the shift, 0 to 1."""

    offsets_s: tuple[tuple[float, float], ...]  # from when on, how far the clock runs ahead
    offline: tuple[tuple[float, float], ...]  # from, for how long
    delay_s: tuple[float, float]
    reboot_at: float | None  # a new journal
    nameless: bool  # no boot and seq
    copies: float  # the share of fixes that come twice
    noise_m: float
    every_s: int


@dataclass(frozen=True)
class Shift:
    """A drawn case."""

    jobs: tuple[Job, ...]
    phone: Phone
    looks: tuple[float, ...]  # when customers look
    seed: int


@dataclass(frozen=True)
class Taken:
    """The truth of one fix. `clock`: counts the jumps of the phone's clock."""

    at: float  # seconds of the shift
    where: Point
    clock: int


@dataclass(frozen=True)
class Window:
    """The truth of one assignment, in seconds of the shift."""

    order: int
    door: Point
    restaurant: Point
    assigned_s: float
    ended_s: float
    visible: tuple[tuple[float, float], ...]


_phones = st.builds(
    Phone,
    offsets_s=st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from(OFFSETS_S)), min_size=1, max_size=3
    ).map(lambda some: tuple(sorted([(0.0, some[0][1]), *some[1:]]))),
    offline=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3)), max_size=2).map(tuple),
    delay_s=st.sampled_from(DELAYS_S),
    reboot_at=st.none() | st.floats(0, 1),
    nameless=st.sampled_from((False, False, False, True)),
    copies=st.sampled_from((0.0, 0.2)),
    noise_m=st.sampled_from((0.0, 10.0)),
    every_s=st.sampled_from((10, 15, 30)),
)
_jobs = st.builds(
    Job,
    idle_s=st.sampled_from((0, 0, 1, 30, 200)),
    door=st.integers(0, len(DOORS) - 1),
    restaurant=st.integers(0, len(RESTAURANTS) - 1),
    stay_s=st.sampled_from((20, 60, 120)),
    press_s=st.sampled_from((10, 19, -60, -15)),
    end=st.sampled_from(("deliver", "deliver", "deliver", "again", "cancel")),
    stacked=st.none() | st.integers(0, len(DOORS) - 1),
    swapped=st.booleans(),
    walk_s=st.sampled_from((0, 0, 30, 1200)),
)
shifts = st.builds(
    Shift,
    jobs=st.lists(_jobs, min_size=2, max_size=3).map(tuple),
    phone=_phones,
    looks=st.lists(st.floats(0.1, 1), max_size=2).map(lambda some: (*sorted(some), 1.0)),
    seed=st.integers(0, 2**32),
)


class World:
    """A shift as it was, and what of it arrived."""

    def __init__(self, shift: Shift, driver_id: str = DRIVER) -> None:
        self.driver_id = driver_id
        self.path: list[tuple[float, Point]] = [(0.0, (600.0, -500.0))]
        self.windows: list[Window] = []
        for job in shift.jobs:
            self._work(job)
        self.end_s = self.path[-1][0] + 30
        self.truth: dict[tuple[object, ...], Taken] = {}
        self.copies: list[Fix] = []
        self._report(shift.phone, Random(shift.seed))

    # -- what happens --------------------------------------------------------------------------

    @property
    def _now(self) -> float:
        return self.path[-1][0]

    def _stay(self, seconds: float) -> None:
        self.path.append((self._now + seconds, self.path[-1][1]))

    def _ride(self, to: Point, part: float = 1.0) -> None:
        (x, y), now = self.path[-1][1], self._now
        goal = (x + (to[0] - x) * part, y + (to[1] - y) * part)
        self.path.append((now + hypot(goal[0] - x, goal[1] - y) / SPEED_MPS, goal))

    def _add(
        self, order: int, door: Point, restaurant: Point, visible: tuple[tuple[float, float], ...]
    ) -> None:
        begun, ended = visible[0][0], visible[-1][1]
        self.windows.append(Window(order, door, restaurant, begun, ended, visible))

    def _work(self, job: Job) -> None:
        self._stay(job.idle_s)
        order = len(self.windows)
        door, restaurant = _point(DOORS[job.door]), _point(RESTAURANTS[job.restaurant])
        begun = self._now
        if job.end == "again":
            self._ride(restaurant, 0.5)
            self._add(order, door, restaurant, ((begun, self._now),))
            self._stay(45)
            begun = self._now
        self._ride(restaurant)
        self._stay(60)
        picked_up = self._now
        if job.end == "cancel":
            self._ride(door, 0.5)
            self._add(order, door, restaurant, ((begun, self._now),))
            return
        self._ride(door)
        ended = max(self._now + job.press_s, begun + 1)
        self._stay(job.stay_s)
        if job.stacked is None:
            ranges, _gap = _split(job, begun, picked_up, ended)
            self._add(order, door, restaurant, ranges)
        else:
            self._stack(job, order, (begun, picked_up, ended))
        self._stay(job.walk_s)

    def _stack(self, job: Job, order: int, first: tuple[float, float, float]) -> None:
        """Bring the second order along: its customer may look when the first one has theirs."""
        assert job.stacked is not None
        begun, picked_up, ended = first
        door, restaurant = _point(DOORS[job.door]), _point(RESTAURANTS[job.restaurant])
        other = _point(DOORS[job.stacked])
        self._ride(other)
        second_ended = max(self._now + job.press_s, ended + 1)
        self._stay(job.stay_s)
        ranges, gap = _split(job, begun, picked_up, ended)
        others = (*gap, (ended, second_ended))
        self._add(order, door, restaurant, ranges)
        self.windows.append(
            Window(order + CARRIED_ALONG, other, restaurant, begun, second_ended, others)
        )

    def where(self, at: float) -> Point:
        """Where the courier was."""
        after = bisect_right(self.path, at, key=lambda stage: stage[0])
        if after == len(self.path):
            return self.path[-1][1]
        (t0, (x0, y0)), (t1, (x1, y1)) = self.path[after - 1], self.path[after]
        part = (at - t0) / (t1 - t0)
        return (x0 + (x1 - x0) * part, y0 + (y1 - y0) * part)

    # -- what arrives --------------------------------------------------------------------------

    def _report(self, phone: Phone, chance: Random) -> None:
        seqs = {"b1": 0, "b2": 0}
        for at in sorted(self._instants(phone.every_s, chance)):
            clock = sum(begins * self.end_s <= at for begins, _ in phone.offsets_s) - 1
            boot = "b2" if phone.reboot_at and at > phone.reboot_at * self.end_s else "b1"
            seqs[boot] += 1
            taken = Taken(at, self.where(at), clock)
            fix_at = instant(at + phone.offsets_s[clock][1])
            x, y = (metres + chance.uniform(-1, 1) * phone.noise_m for metres in taken.where)
            for received_at in self._arrivals(phone, at, chance):
                copy = Fix(
                    self.driver_id,
                    None if phone.nameless else boot,
                    None if phone.nameless else seqs[boot],
                    fix_at,
                    received_at,
                    place_of((x, y)),
                )
                self.truth[copy.identity] = taken
                self.copies.append(copy)

    def _instants(self, every_s: int, chance: Random) -> Iterator[float]:
        """When fixes are taken: now and then, and right before and after each range begins."""
        at = chance.uniform(0, every_s)
        while at < self.end_s:
            yield at
            at += every_s * chance.uniform(0.8, 1.2)
        for window in self.windows:
            for since, _until in window.visible:
                yield max(since - 0.3, 0)
                yield since + 0.3

    def _arrivals(self, phone: Phone, at: float, chance: Random) -> Iterator[datetime]:
        sent = at
        for begins, lasts in phone.offline:
            if begins * self.end_s <= sent < (begins + lasts) * self.end_s:
                sent = (begins + lasts) * self.end_s
        arrived = sent + chance.uniform(*phone.delay_s)
        yield instant(arrived)
        if chance.random() < phone.copies:
            yield instant(arrived + chance.uniform(0, 200))

    # -- what is known at an instant -----------------------------------------------------------

    def copies_by(self, now: float) -> list[Fix]:
        """All copies that have arrived."""
        return [copy for copy in self.copies if copy.received_at <= instant(now)]

    def stops_by(self, now: float) -> list[Stop]:
        """The assignments as the commands up to now left them."""
        return [
            Stop(
                window.order,
                place_of(window.door),
                place_of(window.restaurant),
                instant(window.assigned_s),
                instant(window.ended_s) if window.ended_s <= now else None,
                tuple(_ranges(window.visible, now)),
            )
            for window in self.windows
            if window.assigned_s <= now
        ]

    def known_clocks(self, copies: list[Fix]) -> set[tuple[str | None, int]]:
        """The clocks of which the phone has sent a prompt fix, each of one boot."""
        return {
            (copy.boot, self.truth[copy.identity].clock)
            for copy in copies
            if copy.received_at - instant(self.truth[copy.identity].at) <= SLACK
        }


Seconds = tuple[tuple[float, float], ...]


def _split(job: Job, begun: float, picked_up: float, ended: float) -> tuple[Seconds, Seconds]:
    """When the customer of the first stop may look, and when not in between."""
    resumed = picked_up + 60
    if job.swapped and begun < picked_up < resumed < ended:
        return ((begun, picked_up), (resumed, ended)), ((picked_up, resumed),)
    return ((begun, ended),), ()


def _ranges(visible: tuple[tuple[float, float], ...], now: float) -> Iterator[Range]:
    for since, until in visible:
        if since <= now:
            yield instant(since), instant(until) if until <= now else None


def _point(point: tuple[int, int]) -> Point:
    return float(point[0]), float(point[1])


def instant(seconds: float) -> datetime:
    """An instant of the shift, to the millisecond."""
    return START_AT + timedelta(milliseconds=round(seconds * 1e3))


def place_of(point: Point) -> Place:
    """Metres east and north as a place."""
    degree_m = 111_195.0
    return Place(
        CENTRE.lon_deg + point[0] / (degree_m * cos(radians(CENTRE.lat_deg))),
        CENTRE.lat_deg + point[1] / degree_m,
    )
