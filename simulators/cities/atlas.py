"""The cities of France, and distances between them."""

from __future__ import annotations

import csv
import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from doorstep.geo import distance_m

NEAR_RANKS = (3, 10)  # not the two nearest: vans would go back and forth between pairs


@dataclass(frozen=True, slots=True)
class City:
    """A city's name and centre."""

    name: str
    lon_deg: float
    lat_deg: float

    @property
    def lon_lat(self) -> tuple[float, float]:
        return self.lon_deg, self.lat_deg


def read_cities(path: Path) -> list[City]:
    """Read the bundled CSV of cities."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            City(row["name"], float(row["lon"]), float(row["lat"])) for row in csv.DictReader(file)
        ]


def near_cities(cities: Sequence[City], place: tuple[float, float]) -> list[City]:
    """Return the third to the tenth nearest city of a position, not counting a city at it."""
    first, last = NEAR_RANKS
    nearest = heapq.nsmallest(last + 1, cities, key=lambda city: distance_m(place, city.lon_lat))
    here = nearest[:1] if distance_m(place, nearest[0].lon_lat) < 1.0 else []
    return [city for city in nearest if city not in here][first - 1 : last]


def next_city(cities: Sequence[City], place: tuple[float, float], rng: random.Random) -> City:
    """Choose a destination from a position."""
    return rng.choice(near_cities(cities, place))
