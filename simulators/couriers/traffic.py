"""The traffic: how much longer rides take, by hour, street, day and rider.

The level is Florence's. TomTom's Traffic Index for 2024 reports 27:38 min for 10 km on average,
35 % above a free road, 33 min at 8:00 (61 %) and 32:33 min at 18:00 (59 %). The hours in between,
the shares of small streets and two-wheelers, and the spread of days, riders, rides and streets are
assumptions. The speeds in `motion.py` hold at 20:00.

The ETA must not use this module: it learns from published fixes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from simulators.couriers.motion import Vehicle

ZONE = ZoneInfo("Europe/Rome")
DINNER_HOUR = 20
# Travel time relative to a free road, by hour from midnight; 1.39 on average from 7:00 to 22:00.
SLOWDOWN = (
    1.02, 1.0, 1.0, 1.0, 1.0, 1.03, 1.12, 1.42, 1.61, 1.45, 1.34, 1.32,
    1.38, 1.36, 1.31, 1.33, 1.40, 1.54, 1.59, 1.42, 1.24, 1.14, 1.09, 1.05,
)  # fmt: skip
STREET_SHARE = {  # of the slowdown
    "trunk": 1.2, "primary": 1.2, "secondary": 1.1, "tertiary": 0.9, "unclassified": 0.7,
    "residential": 0.5, "living_street": 0.3, "service": 0.2,
}  # fmt: skip
VEHICLE_SHARE = {Vehicle.CAR: 1.0, Vehicle.SCOOTER: 0.6, Vehicle.BIKE: 0.25}
DAY_SIGMA = 0.05  # between days: rain, a strike, holidays
RIDER_SIGMA = 0.10  # between riders
RIDE_SIGMA = 0.06  # between the rides of a rider
STREET_SIGMA = 0.15  # between the streets of a ride
OBSTACLE_SHARE = 0.01  # of the streets: a double-parked van, a bus, a crossing
OBSTACLE_MEAN_S = 15.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """The traffic of one ride. Factors multiply travel times: above 1 is slower."""

    slowdown: float
    vehicle_share: float
    usual: float
    rng: random.Random

    def on(self, highway: str) -> float:
        """Draw the factor on the next street, of this class."""
        share = STREET_SHARE.get(highway.removesuffix("_link"), 0.7) * self.vehicle_share
        dinner = 1 + (SLOWDOWN[DINNER_HOUR] - 1) * share
        hour = (1 + (self.slowdown - 1) * share) / dinner
        return self.usual * hour * math.exp(self.rng.gauss(0, STREET_SIGMA))

    def obstacle_s(self) -> float:
        """Draw the delay by an obstacle on the next street; mostly 0."""
        if self.rng.random() >= OBSTACLE_SHARE:
            return 0.0
        return self.rng.expovariate(1 / OBSTACLE_MEAN_S)


def draw_rider_factor(rng: random.Random) -> float:
    """Draw a rider's factor."""
    return math.exp(rng.gauss(0, RIDER_SIGMA))


@dataclass(frozen=True, slots=True)
class Traffic:
    """The city's traffic. It follows real time, whatever the speed of the simulation."""

    now: Callable[[], datetime] = lambda: datetime.now(ZONE)

    def conditions(self, vehicle: Vehicle, rider: float, rng: random.Random) -> Conditions:
        """Draw the conditions of a ride that starts now."""
        now = self.now().astimezone(ZONE)
        day = random.Random(f"traffic of {now.date()}").gauss(0, DAY_SIGMA)
        usual = rider * math.exp(day + rng.gauss(0, RIDE_SIGMA))
        return Conditions(slowdown_at(now), VEHICLE_SHARE[vehicle], usual, rng)


def slowdown_at(now: datetime) -> float:
    """Interpolate the slowdown. Each hour's figure holds at half past."""
    hour = now.hour + now.minute / 60 - 0.5
    low = math.floor(hour)
    before, after = SLOWDOWN[low % 24], SLOWDOWN[(low + 1) % 24]
    return before + (after - before) * (hour - low)
