"""From a courier's place and trail to what is left until the door, with a p10-p90 band. Pure.

    to the customer   pace × way to the door + steps to the door
    at the restaurant the rest of the wait + the same
    to the restaurant pace × way to the restaurant + wait + the same

Each sum is then corrected by what such estimates turned out to be: p50, p10 and p90 of true over
estimated time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from eta.model import EtaModel, Phase

if TYPE_CHECKING:  # the graph brings scipy, which a service loads after its first answers
    from eta.streets import Point
    from eta.travel_time_cache import Remaining, TravelTimeCache

# How much riding must be seen to count as much as what was known: a ride's own pace lies within
# 10 % of a known driver's and within 25 % of anybody's, and red lights blur 300 s of it by 15 %.
KNOWN_DRIVER_S = 0.15**2 * 300 / 0.10**2
ANY_DRIVER_S = 0.15**2 * 300 / 0.25**2
LEAST_RIDDEN_S = 20.0
PACE_MOST = 2.5  # slower than that, or its inverse, is not a pace but a break or a jump


@dataclass(frozen=True, slots=True)
class Observation:
    """Where a courier was at an instant, longitude first."""

    at: datetime
    lon_lat: Point


@dataclass(frozen=True, slots=True)
class Task:
    """What a courier has to do. `trail` is of the current ride, oldest first, its end included."""

    phase: Phase
    restaurant: Point
    door: Point
    trail: Sequence[Observation]
    driver_id: str | None = None
    waited_s: float = 0.0
    pace: float = 1.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is left, from the trail's end on: seconds of our time, at the median and as a band."""

    seconds: float
    p10_s: float
    p90_s: float
    ride_s: float
    wait_s: float
    metres: float
    driver_pace: float


class Estimator:
    """Estimates arrivals in one city with one model."""

    def __init__(self, doors: TravelTimeCache) -> None:
        self._doors = doors

    @property
    def model(self) -> EtaModel:
        """What is known now."""
        return self._doors.model

    def use(self, model: EtaModel) -> None:
        """Go on with another model."""
        self._doors.use(model)

    def estimate(self, task: Task) -> Estimate | None:
        """Estimate what is left from the trail's end on; None where no way is known."""
        model, here = self.model, task.trail[-1]
        hour = here.at.astimezone(self._doors.city.streets.zone).hour
        goal = task.restaurant if task.phase is Phase.TO_RESTAURANT else task.door
        start = task.restaurant if task.phase is Phase.AT_RESTAURANT else here.lon_lat
        left = self._doors.left(start, goal, hour)
        if left is None:
            return None
        pace = self._pace(task, goal, hour, left)
        ride_s, metres, wait_s = left.seconds, left.metres, 0.0
        if task.phase is Phase.TO_RESTAURANT:
            onward = self._doors.left(task.restaurant, task.door, hour)
            if onward is None:
                return None
            ride_s, metres = ride_s + onward.seconds, metres + onward.metres
        if task.phase is not Phase.TO_CUSTOMER:
            wait_s = model.wait_left_s(task.waited_s * task.pace)
        total_s = max(ride_s * pace + wait_s + model.arrival_s, 1.0)
        band = model.band(task.phase, total_s)
        ours = total_s / task.pace
        return Estimate(
            seconds=ours * band.p50,
            p10_s=ours * band.p10,
            p90_s=ours * band.p90,
            ride_s=ride_s * pace / task.pace,
            wait_s=wait_s / task.pace,
            metres=metres,
            driver_pace=pace,
        )

    def _pace(self, task: Task, goal: Point, hour: int, left: Remaining) -> float:
        """A driver's time over the usual: as it was in the past, and on this ride so far."""
        known = self.model.driver_pace.get(task.driver_id or "", 1.0)
        if task.phase is Phase.AT_RESTAURANT or len(task.trail) < 2:
            return known
        begun = task.trail[0]
        took_s = (task.trail[-1].at - begun.at).total_seconds() * task.pace
        at_first = self._doors.left(begun.lon_lat, goal, hour)
        ridden_s = at_first.seconds - left.seconds if at_first is not None else 0.0
        if ridden_s < LEAST_RIDDEN_S or took_s <= 0:
            return known
        seen = min(max(took_s / ridden_s, 1 / PACE_MOST), PACE_MOST)
        is_known = (task.driver_id or "") in self.model.driver_pace
        weight = ridden_s / (ridden_s + (KNOWN_DRIVER_S if is_known else ANY_DRIVER_S))
        return math.exp((1 - weight) * math.log(known) + weight * math.log(seen))
