"""A courier's true motion: a polyline with a time at each point.

Times are simulated seconds. A course is built once, when the courier starts; a position on it is
found by bisection.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from simulators.couriers.streets import Point, StreetPoint, Stretch

WALK_MPS = 1.3
FRONT_DOOR_M = 4.0  # from the middle of the street to the pavement in front of the door
YARD_SHARE = 0.1  # of the doors are in a yard
YARD_MAX_M = 20.0
RED_SHARE = 0.45
RED_S = (5.0, 45.0)
CORNER_DEG = 50.0  # a sharper bend than this is a corner
CORNER_S = 1.5  # lost by braking and accelerating


@dataclass(frozen=True, slots=True)
class VehicleTraits:
    """A vehicle's speed: a share of the street's limit, up to a maximum."""

    max_mps: float
    share_of_limit: float


class Vehicle(Enum):
    """The vehicles of couriers in Florence."""

    BIKE = VehicleTraits(4.8, 0.9)
    SCOOTER = VehicleTraits(9.0, 0.72)
    CAR = VehicleTraits(9.5, 0.65)

    def speed_mps(self, limit_mps: float) -> float:
        """Return the speed on a street with this limit."""
        return min(self.value.max_mps, limit_mps * self.value.share_of_limit)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A true position: metres, metres per second, degrees clockwise from north."""

    x: float
    y: float
    speed_mps: float
    heading_deg: float


class Conditions(Protocol):
    """The traffic of one ride."""

    def on(self, highway: str) -> float: ...

    def obstacle_s(self) -> float: ...


class Course:
    """Where a courier is from `start_s` on. After `end_s` the courier stays at the end."""

    def __init__(self, start_s: float, start: Point) -> None:
        self._times = [start_s]
        self._points = [start]

    @property
    def start_s(self) -> float:
        """When the course starts."""
        return self._times[0]

    @property
    def end_s(self) -> float:
        """When the course ends."""
        return self._times[-1]

    @property
    def end(self) -> Point:
        """The last point."""
        return self._points[-1]

    def at(self, now_s: float) -> Whereabouts:
        """Return the position at an instant."""
        times, points = self._times, self._points
        after = bisect_right(times, now_s)
        if after == 0 or after == len(times):
            x, y = points[0] if after == 0 else points[-1]
            return Whereabouts(x, y, 0.0, 0.0)
        (x1, y1), (x2, y2) = points[after - 1], points[after]
        span_s = times[after] - times[after - 1]
        share = (now_s - times[after - 1]) / span_s
        east, north = x2 - x1, y2 - y1
        heading_deg = math.degrees(math.atan2(east, north)) % 360
        speed_mps = math.hypot(east, north) / span_s
        return Whereabouts(x1 + east * share, y1 + north * share, speed_mps, heading_deg)

    def go(self, point: Point, speed_mps: float) -> None:
        """Append a straight line to `point`."""
        length_m = math.dist(self.end, point)
        if length_m > 0.01:
            self._times.append(self.end_s + length_m / speed_mps)
            self._points.append(point)

    def wait(self, seconds: float) -> None:
        """Append a stop."""
        if seconds > 0:
            self._times.append(self.end_s + seconds)
            self._points.append(self.end)

    def ride(
        self,
        way: list[Stretch],
        vehicle: Vehicle,
        rng: random.Random,
        conditions: Conditions | None = None,
    ) -> None:
        """Append a ride along streets, with corners, red lights and traffic."""
        heading: float | None = None
        for stretch in way:
            speed_mps = vehicle.speed_mps(stretch.limit_mps)
            if conditions is not None:
                speed_mps /= conditions.on(stretch.highway)
            for point in stretch.points:
                turned = _heading(self.end, point)
                if turned is None:
                    continue
                if heading is not None and _angle_deg(heading, turned) > CORNER_DEG:
                    self.wait(CORNER_S)
                heading = turned
                self.go(point, speed_mps)
            if stretch.lights and rng.random() < RED_SHARE:
                self.wait(rng.uniform(*RED_S))
            if conditions is not None:
                self.wait(conditions.obstacle_s())

    def shift(self, seconds: float) -> None:
        """Move the whole course in time."""
        self._times = [time_s + seconds for time_s in self._times]


def door_of(place: StreetPoint, target: Point, rng: random.Random) -> Point:
    """Where the courier hands over: on the pavement in front of `target`, or in its yard."""
    reach_m = min(FRONT_DOOR_M, place.off_street_m)
    if rng.random() < YARD_SHARE:
        reach_m = min(YARD_MAX_M, place.off_street_m)
    if place.off_street_m < 0.1:
        return place.point
    share = reach_m / place.off_street_m
    (x, y), (tx, ty) = place.point, target
    return x + (tx - x) * share, y + (ty - y) * share


def _heading(start: Point, end: Point) -> float | None:
    if math.dist(start, end) < 0.01:
        return None
    return math.degrees(math.atan2(end[0] - start[0], end[1] - start[1]))


def _angle_deg(one: float, other: float) -> float:
    return abs((other - one + 180) % 360 - 180)
