"""How much longer rides take than the vehicle alone would: hour, street, day and rider.

A model of our own, in one place. Its level is Florence's: TomTom's Traffic Index for 2024 gives
27:38 min for 10 km on average, 35 % above a free road, 33 min at 8:00 and 32:33 at 18:00, which is
61 % and 59 % above it. The hours in between, and how much of it small streets and two-wheelers
feel, are our guesses, as is the spread of days, riders, rides and streets. What vehicles do
otherwise (`motion.py`) holds at dinner, 20:00.

Nothing that estimates arrivals may read this: it learns from what was reported.
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
# Time over a free road's, by the hour of the day from midnight; 1.39 on average from 7:00 to 22:00.
SLOWDOWN = (
    1.02, 1.0, 1.0, 1.0, 1.0, 1.03, 1.12, 1.42, 1.61, 1.45, 1.34, 1.32,
    1.38, 1.36, 1.31, 1.33, 1.40, 1.54, 1.59, 1.42, 1.24, 1.14, 1.09, 1.05,
)  # fmt: skip
STREET_SHARE = {  # of the slowdown
    "trunk": 1.2, "primary": 1.2, "secondary": 1.1, "tertiary": 0.9, "unclassified": 0.7,
    "residential": 0.5, "living_street": 0.3, "service": 0.2,
}  # fmt: skip
VEHICLE_SHARE = {Vehicle.CAR: 1.0, Vehicle.SCOOTER: 0.6, Vehicle.BIKE: 0.25}
DAY_SIGMA = 0.05  # rain, a strike, holidays: the same for everyone that day
RIDER_SIGMA = 0.10  # one rider beside another
RIDE_SIGMA = 0.06  # one ride of a rider beside the next
STREET_SIGMA = 0.15  # one street beside the next on a ride
HELD_UP_SHARE = 0.01  # of the streets: a van in the second row, a bus, a crossing
HELD_UP_MEAN_S = 15.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """What one ride meets. Factors are of time: above 1 is slower."""

    slowdown: float
    vehicle_share: float
    usual: float
    rng: random.Random

    def on(self, highway: str) -> float:
        """The factor on the next street, of this class."""
        share = STREET_SHARE.get(highway.removesuffix("_link"), 0.7) * self.vehicle_share
        dinner = 1 + (SLOWDOWN[DINNER_HOUR] - 1) * share
        hour = (1 + (self.slowdown - 1) * share) / dinner
        return self.usual * hour * math.exp(self.rng.gauss(0, STREET_SIGMA))

    def held_up_s(self) -> float:
        """How long something is in the way at the end of the next street; mostly not at all."""
        if self.rng.random() >= HELD_UP_SHARE:
            return 0.0
        return self.rng.expovariate(1 / HELD_UP_MEAN_S)


def draw_rider(rng: random.Random) -> float:
    """Draw how a rider compares with others: a factor of time."""
    return math.exp(rng.gauss(0, RIDER_SIGMA))


@dataclass(frozen=True, slots=True)
class Traffic:
    """The city's traffic. It follows the clock on the wall, whatever a demo's speed."""

    now: Callable[[], datetime] = lambda: datetime.now(ZONE)

    def meet(self, vehicle: Vehicle, rider: float, rng: random.Random) -> Conditions:
        """What a ride that begins now meets."""
        now = self.now().astimezone(ZONE)
        day = random.Random(f"traffic of {now.date()}").gauss(0, DAY_SIGMA)
        usual = rider * math.exp(day + rng.gauss(0, RIDE_SIGMA))
        return Conditions(slowdown_at(now), VEHICLE_SHARE[vehicle], usual, rng)


def slowdown_at(now: datetime) -> float:
    """The slowdown between two full hours, on a straight line; each figure holds at half past."""
    hour = now.hour + now.minute / 60 - 0.5
    low = math.floor(hour)
    before, after = SLOWDOWN[low % 24], SLOWDOWN[(low + 1) % 24]
    return before + (after - before) * (hour - low)
