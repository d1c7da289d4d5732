"""When and where orders come from, by the distributions of real meal delivery.

All figures are from data/mdrp_calibration: preparation time, distance from restaurant to customer,
orders per restaurant, orders per courier-hour and the shares by hour.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

import data
from simulators.couriers.streets import Point, StreetPoint, Streets

MAX_DOOR_OFF_STREET_M = 25.0  # a door further away belongs to another street
MAX_RESTAURANT_OFF_STREET_M = 30.0  # half the enter radius: at the kerb a courier has arrived
SMALL_CITY_M = 400.0  # beyond the leave radius of 250 m
DISTANCE_TOLERANCE = 0.05
DISTANCE_TRIES = 5
DOOR_TRIES = 12
DINNER_HOUR = 8  # since the start of the day: the three busiest hours follow


@dataclass(frozen=True, slots=True)
class Restaurant:
    """A restaurant, and the nearest point on a street."""

    restaurant_id: int
    name: str
    lon_deg: float
    lat_deg: float
    point: Point
    place: StreetPoint


@dataclass(frozen=True, slots=True)
class Door:
    """A destination, and the nearest point on a street."""

    lon_deg: float
    lat_deg: float
    point: Point
    place: StreetPoint


class Quantiles:
    """A distribution given by some quantiles, interpolated linearly."""

    def __init__(self, known: Mapping[str, float]) -> None:
        """`known` is like {"p5": 2.0, "p50": 15.0, "p99": 59.0}."""
        pairs = sorted((int(name[1:]) / 100, value) for name, value in known.items())
        first, last = pairs[0], pairs[-1]
        self._pairs = [(0.0, first[1] / 2), *pairs, (1.0, last[1] * 1.1)]

    def at(self, share: float) -> float:
        """Return the quantile of a share."""
        after = max(1, bisect_left(self._pairs, (share, -math.inf)))
        (low, a), (high, b) = self._pairs[after - 1], self._pairs[min(after, len(self._pairs) - 1)]
        return b if high == low else a + (b - a) * (share - low) / (high - low)

    def draw(self, rng: random.Random) -> float:
        """Draw a value."""
        return self.at(rng.random())


class Demand:
    """The order stream of a city's restaurants."""

    def __init__(
        self,
        streets: Streets,
        restaurants: list[Restaurant],
        rng: random.Random,
        buildings: Path,
    ) -> None:
        """`buildings` is a city's file of points in buildings."""
        calibration = read_calibration()
        self._rng = rng
        self._streets = streets
        self._restaurants = restaurants
        orders_a_day = Quantiles(calibration["orders_per_restaurant_day"])
        self._weights = [orders_a_day.draw(rng) for _ in restaurants]
        self._preparation = Quantiles(calibration["prep_minutes_ready_minus_placement"])
        self._distance = Quantiles(calibration["restaurant_to_customer_straight_m"])
        self._service = calibration["service_minutes"]
        shares = calibration["share_of_orders_by_hour_since_day_start"]
        self._shares = [shares[str(hour)] for hour in range(len(shares))]
        self._per_courier_hour = fmean(
            seed["orders_per_courier_hour"] for seed in calibration["per_seed"]
        )
        self._doors = _building_points(streets, buildings)

    def gap_s(self, couriers: int, elapsed_s: float, first_hour: int = DINNER_HOUR) -> float:
        """Draw the time until the next order, `elapsed_s` after the start of a shift."""
        hour = (first_hour + int(elapsed_s // 3600)) % len(self._shares)
        per_hour = couriers * self._per_courier_hour * self._shares[hour]
        return self._rng.expovariate(per_hour / self._shares[first_hour] / 3600)

    def restaurant(self) -> Restaurant:
        """Draw a restaurant, weighted by its orders per day."""
        return self._rng.choices(self._restaurants, self._weights)[0]

    def door(self, restaurant: Restaurant) -> Door:
        """Draw a customer's door at a drawn distance from the restaurant."""
        x, y = restaurant.point
        distances = np.hypot(self._doors[:, 0] - x, self._doors[:, 1] - y)
        for _ in range(DISTANCE_TRIES):
            wanted_m = self._distance.draw(self._rng)
            near = np.flatnonzero(np.abs(distances - wanted_m) <= wanted_m * DISTANCE_TOLERANCE)
            if (door := self._draw_door(near)) is not None:
                return door
        # The city has no door at the drawn distances.
        far = np.flatnonzero(distances >= SMALL_CITY_M)
        if (door := self._draw_door(far)) is not None:
            return door
        return self._door(list(restaurant.place.point))  # no door nearby: at the restaurant

    def _draw_door(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Door | None:
        """Draw one of these doors that is at a street."""
        for row in self._rng.sample(rows.tolist(), min(DOOR_TRIES, len(rows))):
            door = self._door(self._doors[row].tolist())
            if door.place.off_street_m <= MAX_DOOR_OFF_STREET_M:
                return door
        return None

    def preparation_s(self) -> float:
        """Draw the kitchen's time, from the order on."""
        return self._preparation.draw(self._rng) * 60

    def pickup_s(self) -> float:
        """Draw the time of the hand-over at the restaurant."""
        return float(self._service["pickup"]) * 60 * self._rng.uniform(0.6, 1.4)

    def dropoff_s(self) -> float:
        """Draw the time of the hand-over at the door."""
        return float(self._service["dropoff"]) * 60 * self._rng.uniform(0.6, 1.4)

    def _door(self, point: list[float]) -> Door:
        return place_door(self._streets, *self._streets.to_lon_lat(point[0], point[1]))


def read_calibration() -> dict[str, Any]:
    """Read the calibration data."""
    calibration: dict[str, Any] = json.loads(data.meal_delivery_calibration().read_bytes())
    return calibration


def place_restaurant(
    streets: Streets, restaurant_id: int, name: str, lon_deg: float, lat_deg: float
) -> Restaurant:
    """Find the point on a street nearest to a restaurant."""
    point = streets.to_xy(lon_deg, lat_deg)
    return Restaurant(restaurant_id, name, lon_deg, lat_deg, point, streets.nearest(*point))


def place_restaurants(
    streets: Streets, rows: list[tuple[int, str, float, float]]
) -> list[Restaurant]:
    """Place restaurants, given as (id, name, lon_deg, lat_deg), and drop those off the streets."""
    placed = []
    for row in rows:
        point = streets.to_xy(*row[2:])
        place = streets.nearest_within(*point, MAX_RESTAURANT_OFF_STREET_M)
        if place is not None:
            placed.append(Restaurant(*row, point, place))
    return placed


def place_door(streets: Streets, lon_deg: float, lat_deg: float) -> Door:
    """Find the point on a street nearest to a destination."""
    point = streets.to_xy(lon_deg, lat_deg)
    return Door(lon_deg, lat_deg, point, streets.nearest(*point))


def read_restaurants(path: Path) -> list[tuple[int, str, float, float]]:
    """Read the named restaurants of a food places file: (id, name, lon_deg, lat_deg)."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            (int(row["poi_id"]), row["name"], float(row["lon"]), float(row["lat"]))
            for row in csv.DictReader(file)
            if row["kind"] == "restaurant" and row["name"]
        ]


def _building_points(
    streets: Streets, path: Path
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return np.array(
            [streets.to_xy(float(row["lon"]), float(row["lat"])) for row in csv.DictReader(file)]
        )
