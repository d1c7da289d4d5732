"""Simulated days of deliveries, without a stack: the couriers' motion, traffic and receivers.

The result is what the database would hold: fixes with GPS noise and the instants of each
assignment. The arrival is the true one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from data.cities import bundled_city
from eta.estimate import Observation
from eta.rides import Delivery
from simulators.couriers.courier import AT_THE_COUNTER_S
from simulators.couriers.demand import (
    Demand,
    Door,
    Restaurant,
    place_restaurants,
    read_calibration,
    read_restaurants,
)
from simulators.couriers.motion import WALK_MPS, Course, Vehicle, door_of
from simulators.couriers.orders import ASSIGN_BEFORE_READY_S, ASSIGN_WITHIN_S, CONFIRM_S
from simulators.couriers.receiver import Receiver
from simulators.couriers.streets import load_streets
from simulators.couriers.traffic import ZONE, Traffic, draw_rider_factor

DAY_STARTS = 11  # the calibration counts hours since the day's start; dinner, hour 8, is at 19:00
OBSERVED_EVERY_S = 20.0  # the learner reads every fifth of the fixes, 4 s apart
NEAR_M = 2_000.0  # an assigned courier starts within this distance


@dataclass(frozen=True, slots=True)
class Rider:
    """One courier of the fleet, the same on every day."""

    driver_id: str
    vehicle: Vehicle
    factor: float


class SimulatedDays:
    """A fleet in Florence. The same seed gives the same days."""

    def __init__(self, seed: int, riders: int) -> None:
        self._rng = random.Random(seed)
        self._streets = load_streets(bundled_city())
        restaurants = place_restaurants(self._streets, read_restaurants(bundled_city().restaurants))
        self._restaurants = restaurants
        self._demand = Demand(self._streets, restaurants, self._rng, bundled_city().buildings)
        self._shares = read_calibration()["share_of_orders_by_hour_since_day_start"]
        self._first = datetime(2026, 1, 12, DAY_STARTS, tzinfo=ZONE) + timedelta(days=7 * seed)
        self._riders = [
            Rider(
                f"courier-{number:03}",
                self._rng.choices(list(Vehicle), (4, 5, 1))[0],
                draw_rider_factor(self._rng),
            )
            for number in range(riders)
        ]

    def deliver(self, day: int, deliveries: int) -> list[Delivery]:
        """One day's deliveries, distributed over the hours as in the calibration."""
        hours = [int(hour) for hour in self._shares]
        drawn = self._rng.choices(hours, list(self._shares.values()), k=deliveries)
        begins = [
            self._first + timedelta(days=day, hours=hour, seconds=self._rng.uniform(0, 3600))
            for hour in drawn
        ]
        return [self._deliver(self._rng.choice(self._riders), at) for at in sorted(begins)]

    def _deliver(self, rider: Rider, assigned_at: datetime) -> Delivery:
        restaurant = self._demand.restaurant()
        door = self._demand.door(restaurant)
        course = Course(0.0, self._start_near(restaurant).place.point)
        self._ride(course, rider, restaurant, assigned_at)
        at_restaurant_s = course.end_s
        course.wait(self._wait_s(at_restaurant_s))
        picked_up_s = course.end_s
        self._ride(course, rider, door, assigned_at + timedelta(seconds=picked_up_s))

        def at(seconds: float) -> datetime:
            return assigned_at + timedelta(seconds=seconds)

        return Delivery(
            driver_id=rider.driver_id,
            restaurant=(restaurant.lon_deg, restaurant.lat_deg),
            door=(door.lon_deg, door.lat_deg),
            assigned_at=assigned_at,
            at_restaurant_at=at(at_restaurant_s),
            picked_up_at=at(picked_up_s),
            at_customer_at=at(course.end_s),
            trail=[Observation(at(seconds), place) for seconds, place in self._observed(course)],
        )

    def _start_near(self, restaurant: Restaurant) -> Restaurant:
        while True:
            one = self._rng.choice(self._restaurants)
            x, y = one.point[0] - restaurant.point[0], one.point[1] - restaurant.point[1]
            if x * x + y * y <= NEAR_M * NEAR_M:
                return one

    def _wait_s(self, arrived_s: float) -> float:
        """The wait at the counter, for an order assigned as by `Dispatch`."""
        prepared_s = self._demand.preparation_s()
        confirmed_s = self._rng.uniform(*CONFIRM_S)
        earliest_s = min(prepared_s - ASSIGN_BEFORE_READY_S, confirmed_s + ASSIGN_WITHIN_S)
        ready_s = prepared_s - max(earliest_s, confirmed_s)  # from the assignment on
        return max(AT_THE_COUNTER_S, self._demand.pickup_s(), ready_s - arrived_s)

    def _ride(
        self, course: Course, rider: Rider, goal: Restaurant | Door, begun_at: datetime
    ) -> None:
        place, point = goal.place, goal.point
        way = self._streets.way(self._streets.nearest(*course.end), place)
        conditions = Traffic(lambda: begun_at).conditions(rider.vehicle, rider.factor, self._rng)
        course.ride(way, rider.vehicle, self._rng, conditions)
        course.go(door_of(place, point, self._rng), WALK_MPS)

    def _observed(self, course: Course) -> Sequence[tuple[float, tuple[float, float]]]:
        receiver = Receiver(self._rng)
        seen = []
        for step in range(int(course.end_s / OBSERVED_EVERY_S) + 1):
            here = course.at(step * OBSERVED_EVERY_S)
            x, y, accuracy_m = receiver.observe(here.x, here.y, step * OBSERVED_EVERY_S)
            if accuracy_m <= 50:
                seen.append((step * OBSERVED_EVERY_S, self._streets.to_lon_lat(x, y)))
        return seen
