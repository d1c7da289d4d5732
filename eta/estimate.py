"""Estimate the remaining time to the door, with a p10-p90 band. No I/O.

    to_customer     pace × route to the door + last steps
    at_restaurant   remaining wait + pace × route to the door + last steps
    to_restaurant   pace × route to the restaurant + wait + pace × route to the door + last steps

Each sum is multiplied by the quantiles (p10, p50, p90) of true over estimated time, as observed
on deliveries that the speeds were not fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from eta.model import EtaModel, Phase

if TYPE_CHECKING:  # the graph imports scipy, which a service loads after its first requests
    from eta.streets import Point
    from eta.travel_time_cache import Remaining, TravelTimeCache

# How many seconds of riding outweigh the prior pace: traffic lights blur 300 s of riding by 15 %;
# a ride's pace lies within 10 % of a known driver's, and within 25 % of an unknown driver's.
KNOWN_DRIVER_S = 0.15**2 * 300 / 0.10**2
UNKNOWN_DRIVER_S = 0.15**2 * 300 / 0.25**2
MIN_RIDDEN_S = 20.0
MAX_PACE = 2.5  # a pace beyond it, or below its inverse, is a break or a jump


@dataclass(frozen=True, slots=True)
class Observation:
    """A courier's position at an instant, longitude first."""

    at: datetime
    lon_lat: Point


@dataclass(frozen=True, slots=True)
class Task:
    """What a courier has to do. `trail` covers the current ride, oldest first, newest included."""

    phase: Phase
    restaurant: Point
    door: Point
    trail: Sequence[Observation]
    driver_id: str | None = None
    waited_s: float = 0.0
    pace: float = 1.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """The remaining time from the trail's end, in real seconds: the median and the band."""

    seconds: float
    p10_s: float
    p90_s: float
    ride_s: float
    wait_s: float
    metres: float
    driver_pace: float


class Estimator:
    """Estimates arrivals in one city with one model."""

    def __init__(self, travel_times: TravelTimeCache) -> None:
        self._travel_times = travel_times

    @property
    def model(self) -> EtaModel:
        """The model in use."""
        return self._travel_times.model

    def set_model(self, model: EtaModel) -> None:
        """Use another model from now on."""
        self._travel_times.set_model(model)

    def ride(self, start: Point, goal: Point, at: datetime) -> Remaining | None:
        """Look up the ride between two places at an hour; None without a route."""
        hour = at.astimezone(self._travel_times.city.streets.zone).hour
        return self._travel_times.remaining(start, goal, hour)

    def estimate(self, task: Task) -> Estimate | None:
        """Estimate the remaining time from the trail's end; None without a route."""
        model, newest = self.model, task.trail[-1]
        hour = newest.at.astimezone(self._travel_times.city.streets.zone).hour
        goal = task.restaurant if task.phase is Phase.TO_RESTAURANT else task.door
        start = task.restaurant if task.phase is Phase.AT_RESTAURANT else newest.lon_lat
        remaining = self._travel_times.remaining(start, goal, hour)
        if remaining is None:
            return None
        driver_pace = self._driver_pace(task, goal, hour, remaining)
        ride_s, metres, wait_s = remaining.seconds, remaining.metres, 0.0
        if task.phase is Phase.TO_RESTAURANT:
            onward = self._travel_times.remaining(task.restaurant, task.door, hour)
            if onward is None:
                return None
            ride_s, metres = ride_s + onward.seconds, metres + onward.metres
        if task.phase is not Phase.TO_CUSTOMER:
            wait_s = model.remaining_wait_s(task.waited_s * task.pace)
        model_s = max(ride_s * driver_pace + wait_s + model.arrival_s, 1.0)
        band = model.band(task.phase, model_s)
        real_s = model_s / task.pace
        return Estimate(
            seconds=real_s * band.p50,
            p10_s=real_s * band.p10,
            p90_s=real_s * band.p90,
            ride_s=ride_s * driver_pace / task.pace,
            wait_s=wait_s / task.pace,
            metres=metres,
            driver_pace=driver_pace,
        )

    def way(self, task: Task) -> list[Point]:
        """The way ahead of a task that was estimated: to the restaurant, then to the door.

        Empty without one.
        """
        times, newest = self._travel_times, task.trail[-1]
        hour = newest.at.astimezone(times.city.streets.zone).hour
        if task.phase is Phase.TO_CUSTOMER:
            return times.way(newest.lon_lat, task.door, hour) or []
        onward = times.way(task.restaurant, task.door, hour) or []
        if task.phase is Phase.AT_RESTAURANT:
            return onward
        return [*(times.way(newest.lon_lat, task.restaurant, hour) or []), *onward]

    def _driver_pace(self, task: Task, goal: Point, hour: int, remaining: Remaining) -> float:
        """The driver's time over the usual: the learned pace, adjusted by the current ride."""
        learned = self.model.driver_pace.get(task.driver_id or "", 1.0)
        if task.phase is Phase.AT_RESTAURANT or len(task.trail) < 2:
            return learned
        oldest = task.trail[0]
        elapsed_s = (task.trail[-1].at - oldest.at).total_seconds() * task.pace
        at_first = self._travel_times.remaining(oldest.lon_lat, goal, hour)
        ridden_s = at_first.seconds - remaining.seconds if at_first is not None else 0.0
        if ridden_s < MIN_RIDDEN_S or elapsed_s <= 0:
            return learned
        observed = min(max(elapsed_s / ridden_s, 1 / MAX_PACE), MAX_PACE)
        is_known = (task.driver_id or "") in self.model.driver_pace
        weight = ridden_s / (ridden_s + (KNOWN_DRIVER_S if is_known else UNKNOWN_DRIVER_S))
        return math.exp((1 - weight) * math.log(learned) + weight * math.log(observed))
