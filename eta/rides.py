"""Past deliveries, and the ride segments in them that a model is fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eta.estimate import Observation, Task
from eta.features import City
from eta.model import STREET_CLASSES, EtaModel, Phase
from eta.streets import Point, StreetPoint
from eta.streets.roads import ShortestPathTree
from eta.travel_time_cache import OFF_STREET_MPS

MIN_SEGMENT_S = 180.0  # a shorter one is dominated by a single traffic light
MIN_MPS, MAX_MPS = 0.7, 25.0  # a segment outside is a break or a jump
MAX_OFF_STREET_M = 60.0
TRAIL_WITHIN_S = 300.0  # the length of trail that tracking_api reads


Cities = Mapping[str, City]
"""The street graphs, by the names of cities."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One assignment that ended at the door. `trail` covers all of it, thinned, oldest first."""

    driver_id: str
    restaurant: Point
    door: Point
    assigned_at: datetime
    at_restaurant_at: datetime | None
    picked_up_at: datetime
    at_customer_at: datetime
    trail: Sequence[Observation]
    pace: float = 1.0
    city: str = ""  # of the restaurant

    def tasks(self) -> Iterator[tuple[Task, float]]:
        """The task at each point of the trail, and the true remaining seconds."""
        for index, newest in enumerate(self.trail):
            phase, since, waited_s = self._phase(newest.at)
            if phase is None or newest.at >= self.at_customer_at:
                continue
            oldest = next(
                one for one in self.trail[: index + 1] if self._is_in_trail(one, newest, since)
            )
            trail = [newest] if oldest is newest else [oldest, newest]
            remaining_s = (self.at_customer_at - newest.at).total_seconds()
            task = Task(
                phase, self.restaurant, self.door, trail, self.driver_id, waited_s, self.pace
            )
            yield task, remaining_s

    def _phase(self, at: datetime) -> tuple[Phase | None, datetime, float]:
        """The phase at an instant, its start, and the seconds waited in it."""
        if at >= self.picked_up_at:
            return Phase.TO_CUSTOMER, self.picked_up_at, 0.0
        if self.at_restaurant_at is None or at < self.assigned_at:
            return None, at, 0.0
        if at >= self.at_restaurant_at:
            waited_s = (at - self.at_restaurant_at).total_seconds()
            return Phase.AT_RESTAURANT, self.at_restaurant_at, waited_s
        return Phase.TO_RESTAURANT, self.assigned_at, 0.0

    def _is_in_trail(self, one: Observation, newest: Observation, since: datetime) -> bool:
        age_s = (newest.at - one.at).total_seconds() * self.pace
        return one.at >= since and age_s <= TRAIL_WITHIN_S

    def legs(self) -> Iterator[tuple[Point, list[Observation], datetime]]:
        """The rides to the restaurant and to the door: goal, trail, arrival."""
        if self.at_restaurant_at is not None:
            trail = self._between(self.assigned_at, self.at_restaurant_at)
            yield self.restaurant, trail, self.at_restaurant_at
        yield self.door, self._between(self.picked_up_at, self.at_customer_at), self.at_customer_at

    def _between(self, start: datetime, end: datetime) -> list[Observation]:
        return [one for one in self.trail if start <= one.at < end]


@dataclass(frozen=True, slots=True)
class RideSegments:
    """Ride segments as columns, one row each."""

    features: NDArray[np.float64]  # metres per street class, then crossings
    is_last: NDArray[np.float64]  # 1 if it ends at a door
    hour: NDArray[np.int64]
    driver: NDArray[np.int64]  # index into `driver_ids`
    duration_s: NDArray[np.float64]  # model time
    delivery: NDArray[np.int64]  # index of the delivery
    driver_ids: Sequence[str]


def split_rides(cities: Cities, deliveries: Sequence[Delivery], model: EtaModel) -> RideSegments:
    """Split rides into segments of at least 3 min, along the routes of `model`."""
    hours_s = {
        name: [
            city.routing_costs(model.route_choice, city.edge_seconds(model, hour))
            for hour in range(24)
        ]
        for name, city in cities.items()
    }
    drivers: dict[str, int] = {}
    rows: list[tuple[NDArray[np.float64], float, int, int, float, int]] = []
    for number, delivery in enumerate(deliveries):
        city = cities[delivery.city]
        driver = drivers.setdefault(delivery.driver_id, len(drivers))
        for goal, trail, arrived_at in delivery.legs():
            xy = city.streets.to_xy(*goal)
            goal_point = city.streets.nearest_within(*xy, MAX_OFF_STREET_M)
            if goal_point is None or not trail:
                continue
            hour = trail[0].at.astimezone(city.streets.zone).hour
            tree = city.roads.shortest_path_tree(goal_point, hours_s[delivery.city][hour])
            segments = _split_ride(city, tree, trail, arrived_at, delivery.pace)
            rows += [
                (features, is_last, hour, driver, duration_s, number)
                for features, is_last, duration_s in segments
            ]
    columns: list[Sequence[Any]] = [*zip(*rows, strict=True)] if rows else [[]] * 6
    return RideSegments(
        np.array(columns[0]).reshape(len(rows), len(STREET_CLASSES) + 1),
        np.array(columns[1]),
        np.array(columns[2], dtype=np.int64),
        np.array(columns[3], dtype=np.int64),
        np.array(columns[4]),
        np.array(columns[5], dtype=np.int64),
        list(drivers),
    )


def _match(city: City, tree: ShortestPathTree, lon_lat: Point) -> StreetPoint | None:
    """The candidate street point of a fix with the shortest remaining time to the goal."""
    return min(
        city.candidates(lon_lat, MAX_OFF_STREET_M),
        key=lambda point: tree.seconds_from(point) + point.off_street_m / OFF_STREET_MPS,
        default=None,
    )


def _split_ride(
    city: City, tree: ShortestPathTree, trail: list[Observation], arrived_at: datetime, pace: float
) -> Iterator[tuple[NDArray[np.float64], float, float]]:
    """Split one ride: (features, is_last, duration_s). Fixes far from every street are skipped."""
    marks: list[tuple[datetime, NDArray[np.float64]]] = []
    for one in trail:
        is_due = not marks or (one.at - marks[-1][0]).total_seconds() * pace >= MIN_SEGMENT_S
        if is_due and (point := _match(city, tree, one.lon_lat)) is not None:
            marks.append((one.at, city.route_features(tree.route_from(point))))
    if len(marks) > 1 and (arrived_at - marks[-1][0]).total_seconds() * pace < MIN_SEGMENT_S:
        marks.pop()  # so that the last segment has the minimum length too
    for (started_at, features), following in zip(marks, [*marks[1:], None], strict=True):
        ended_at, remaining = following or (arrived_at, np.zeros_like(features))
        duration_s = (ended_at - started_at).total_seconds() * pace
        ridden = features - remaining
        metres = float(ridden[:-1].sum())
        if duration_s > 0 and MIN_MPS <= metres / duration_s <= MAX_MPS:
            yield ridden, float(following is None), duration_s
