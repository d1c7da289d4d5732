"""Deliveries of the past, and the pieces of rides in them that a model is fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eta.estimate import Observation, Task
from eta.features import City
from eta.model import STREET_CLASSES, EtaModel, Phase
from eta.streets import Place, Point
from eta.streets.roads import ShortestPathTree
from eta.travel_time_cache import OFF_STREET_MPS

PIECE_S = 180.0  # shorter ones are made of one red light, or of none
SLOWEST_MPS, FASTEST_MPS = 0.7, 25.0  # a piece beyond these is a break or a jump, not a ride
MOST_OFF_STREET_M = 60.0
TRAIL_WITHIN_S = 300.0  # as much of it as tracking_api reads


@dataclass(frozen=True, slots=True)
class Delivery:
    """One assignment that ended at the door. `trail` is thinned, oldest first, of all of it."""

    driver_id: str
    restaurant: Point
    door: Point
    assigned_at: datetime
    at_restaurant_at: datetime | None
    picked_up_at: datetime
    at_customer_at: datetime
    trail: Sequence[Observation]
    pace: float = 1.0

    def tasks(self) -> Iterator[tuple[Task, float]]:
        """What an estimate would have been asked at each point of the trail, and the truth."""
        for index, here in enumerate(self.trail):
            phase, since, waited_s = self._phase(here.at)
            if phase is None or here.at >= self.at_customer_at:
                continue
            first = next(one for one in self.trail[: index + 1] if self._recent(one, here, since))
            trail = [here] if first is here else [first, here]
            left_s = (self.at_customer_at - here.at).total_seconds()
            task = Task(
                phase, self.restaurant, self.door, trail, self.driver_id, waited_s, self.pace
            )
            yield task, left_s

    def _phase(self, at: datetime) -> tuple[Phase | None, datetime, float]:
        if at >= self.picked_up_at:
            return Phase.TO_CUSTOMER, self.picked_up_at, 0.0
        if self.at_restaurant_at is None or at < self.assigned_at:
            return None, at, 0.0
        if at >= self.at_restaurant_at:
            waited_s = (at - self.at_restaurant_at).total_seconds()
            return Phase.AT_RESTAURANT, self.at_restaurant_at, waited_s
        return Phase.TO_RESTAURANT, self.assigned_at, 0.0

    def _recent(self, one: Observation, here: Observation, since: datetime) -> bool:
        age_s = (here.at - one.at).total_seconds() * self.pace
        return one.at >= since and age_s <= TRAIL_WITHIN_S

    def legs(self) -> Iterator[tuple[Point, list[Observation], datetime]]:
        """The two rides: goal, trail, arrival."""
        if self.at_restaurant_at is not None:
            yield (
                self.restaurant,
                self._between(self.assigned_at, self.at_restaurant_at),
                (self.at_restaurant_at),
            )
        yield self.door, self._between(self.picked_up_at, self.at_customer_at), self.at_customer_at

    def _between(self, begin: datetime, end: datetime) -> list[Observation]:
        return [one for one in self.trail if begin <= one.at < end]


@dataclass(frozen=True, slots=True)
class Pieces:
    """Rows of rides: metres per class and crossings, whether it ends at a door, when, who, how
    long in the city's own time."""

    amounts: NDArray[np.float64]
    ends: NDArray[np.float64]
    hour: NDArray[np.int64]
    driver: NDArray[np.int64]
    took_s: NDArray[np.float64]
    delivery: NDArray[np.int64]
    driver_ids: Sequence[str]


def cut(city: City, deliveries: Sequence[Delivery], model: EtaModel) -> Pieces:
    """Cut rides into pieces of 3 min and more, along the ways that couriers take by `model`."""
    way_s = [city.chosen_by(model.ways, city.way_s(model, hour)) for hour in range(24)]
    drivers: dict[str, int] = {}
    rows: list[tuple[NDArray[np.float64], float, int, int, float, int]] = []
    for number, delivery in enumerate(deliveries):
        driver = drivers.setdefault(delivery.driver_id, len(drivers))
        for goal, trail, arrived_at in delivery.legs():
            xy = city.streets.to_xy(*goal)
            place = city.streets.nearest_within(*xy, MOST_OFF_STREET_M)
            if place is None or not trail:
                continue
            hour = trail[0].at.astimezone(city.streets.zone).hour
            field = city.roads.towards(place, way_s[hour])
            for amounts, ends, took_s in _pieces(city, field, trail, arrived_at, delivery.pace):
                rows.append((amounts, ends, hour, driver, took_s, number))
    columns: list[Sequence[Any]] = [*zip(*rows, strict=True)] if rows else [[]] * 6
    return Pieces(
        np.array(columns[0]).reshape(len(rows), len(STREET_CLASSES) + 1),
        np.array(columns[1]),
        np.array(columns[2], dtype=np.int64),
        np.array(columns[3], dtype=np.int64),
        np.array(columns[4]),
        np.array(columns[5], dtype=np.int64),
        list(drivers),
    )


def _place(city: City, field: ShortestPathTree, lon_lat: Point) -> Place | None:
    """Of the streets that a fix may be on, the one from where the goal is nearest."""
    return min(
        city.places(lon_lat, MOST_OFF_STREET_M),
        key=lambda place: field.seconds_from(place) + place.off_street_m / OFF_STREET_MPS,
        default=None,
    )


def _pieces(
    city: City, field: ShortestPathTree, trail: list[Observation], arrived_at: datetime, pace: float
) -> Iterator[tuple[NDArray[np.float64], float, float]]:
    """Cut one ride. What is far from every street is left out, so the piece gets longer."""
    marks: list[tuple[datetime, NDArray[np.float64]]] = []
    for one in trail:
        due = not marks or (one.at - marks[-1][0]).total_seconds() * pace >= PIECE_S
        if due and (place := _place(city, field, one.lon_lat)) is not None:
            marks.append((one.at, city.amounts(field.route_from(place))))
    if len(marks) > 1 and (arrived_at - marks[-1][0]).total_seconds() * pace < PIECE_S:
        marks.pop()  # the last piece is a whole one too
    for (begun_at, amounts), following in zip(marks, [*marks[1:], None], strict=True):
        ended_at, after = following or (arrived_at, np.zeros_like(amounts))
        took_s = (ended_at - begun_at).total_seconds() * pace
        ridden = amounts - after
        metres = float(ridden[:-1].sum())
        if took_s > 0 and SLOWEST_MPS <= metres / took_s <= FASTEST_MPS:
            yield ridden, float(following is None), took_s
