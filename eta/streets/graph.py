"""The streets of a city, and the nearest point of any of them.

Inside, coordinates are metres east (x) and north (y) of the graph's middle: over Florence's
14 x 12 km that plane is off by less than 0.1 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

EARTH_M_PER_DEG = 111_195.0  # mean radius 6,371.0 km * pi / 180
CELL_M = 100.0  # of the grid in which the nearest street is looked up
RINGS = (1, 2, 4, 8, 16, 32, 64)

Point = tuple[float, float]
_Feet = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Street:
    """One edge of the graph, from node `u` to node `v`. `highway` is OpenStreetMap's class."""

    u: int
    v: int
    one_way: bool
    limit_mps: float
    highway: str
    points: tuple[Point, ...]
    along_m: tuple[float, ...]  # distance from u at each point

    @property
    def length_m(self) -> float:
        """Length from u to v."""
        return self.along_m[-1]


@dataclass(frozen=True, slots=True)
class Place:
    """The point of a street that is nearest to somewhere."""

    street: int
    along_m: float
    point: Point
    off_street_m: float


class Streets:
    """A city's streets, all of which can be reached from each other."""

    def __init__(
        self,
        middle: Point,
        streets: Sequence[Street],
        nodes: Sequence[Point],
        zone: ZoneInfo = ZoneInfo("UTC"),  # noqa: B008 - a constant
    ) -> None:
        """`middle` is (lon_deg, lat_deg); every node must be the end of some street."""
        self.streets = streets
        self.nodes = nodes
        self.zone = zone
        self.middle = middle
        self._lon, self._lat = middle
        self._m_per_lon = EARTH_M_PER_DEG * math.cos(math.radians(self._lat))
        self._starts, self._ends, self._owner = _segments(streets)
        self._grid = _grid(self._starts, self._ends)

    def to_xy(self, lon_deg: float, lat_deg: float) -> Point:
        """Degrees to metres."""
        return (
            (lon_deg - self._lon) * self._m_per_lon,
            (lat_deg - self._lat) * EARTH_M_PER_DEG,
        )

    def to_lon_lat(self, x: float, y: float) -> Point:
        """Metres to degrees, longitude first."""
        return self._lon + x / self._m_per_lon, self._lat + y / EARTH_M_PER_DEG

    def nearest(self, x: float, y: float) -> Place:
        """The nearest point of any street. Raises ValueError some kilometres out of the city."""
        place = self.nearest_within(x, y, RINGS[-1] * CELL_M)
        if place is None:
            raise ValueError(f"({x:.0f}, {y:.0f}) is too far from every street")
        return place

    def nearest_within(self, x: float, y: float, most_m: float) -> Place | None:
        """The nearest point of any street, if it is not further away than `most_m`."""
        for rings in RINGS:
            place = self._nearest_among(self._within(x, y, rings), x, y)
            if place is not None and place.off_street_m <= rings * CELL_M:
                # what lies outside these rings is further away
                return place if place.off_street_m <= most_m else None
            if rings * CELL_M >= most_m:
                return None
        return None

    def places_within(self, x: float, y: float, most_m: float, blur_m: float) -> list[Place]:
        """The nearest street, and those hardly further away: `blur_m` more, as a fix is unsure.

        Nearest first. Where the nearest is so far away that its neighbours say nothing, only it.
        """
        segments = self._within(x, y, 1)
        found = self._feet(segments, x, y) if segments else None
        if found is None or found[2].min() + blur_m > CELL_M:
            nearest = self.nearest_within(x, y, most_m)
            return [] if nearest is None else [nearest]
        distances = found[2]
        near = np.flatnonzero(distances <= min(distances.min() + blur_m, most_m))
        places: dict[int, Place] = {}
        for number in near[distances[near].argsort()].tolist():
            place = self._place_of(segments, found, number)
            places.setdefault(place.street, place)
        return [*places.values()]

    def _within(self, x: float, y: float, rings: int) -> list[int]:
        east, north = math.floor(x / CELL_M), math.floor(y / CELL_M)
        span = range(-rings, rings + 1)
        cells = (self._grid.get((east + i, north + j), ()) for i in span for j in span)
        return [segment for cell in cells for segment in cell]

    def _feet(self, segments: list[int], x: float, y: float) -> _Feet:
        """Of each segment the nearest point: how far along it, where, and how far away."""
        starts = self._starts[segments]
        steps = self._ends[segments] - starts
        there = np.array((x, y)) - starts
        share = np.clip((there * steps).sum(1) / np.maximum((steps * steps).sum(1), 1e-9), 0, 1)
        feet = starts + steps * share[:, None]
        return share, feet, np.hypot(feet[:, 0] - x, feet[:, 1] - y)

    def _nearest_among(self, segments: list[int], x: float, y: float) -> Place | None:
        if not segments:
            return None
        found = self._feet(segments, x, y)
        return self._place_of(segments, found, int(found[2].argmin()))

    def _place_of(self, segments: list[int], found: _Feet, number: int) -> Place:
        share, feet, distances = found
        one = segments[number]
        index, segment = (int(part) for part in self._owner[one])
        along_m = self.streets[index].along_m
        metres = along_m[segment] + share[number] * (along_m[segment + 1] - along_m[segment])
        point = (float(feet[number, 0]), float(feet[number, 1]))
        return Place(index, float(metres), point, float(distances[number]))


def _segments(
    streets: Sequence[Street],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """All straight segments: starts, ends, and (street, segment) of each."""
    starts = [point for street in streets for point in street.points[:-1]]
    ends = [point for street in streets for point in street.points[1:]]
    owner = [
        (index, segment)
        for index, street in enumerate(streets)
        for segment in range(len(street.points) - 1)
    ]
    return np.array(starts), np.array(ends), np.array(owner)


def _grid(
    starts: NDArray[np.float64], ends: NDArray[np.float64]
) -> dict[tuple[int, int], list[int]]:
    """Which segments' bounding boxes touch each cell."""
    low = np.floor(np.minimum(starts, ends) / CELL_M).astype(int).tolist()
    high = np.floor(np.maximum(starts, ends) / CELL_M).astype(int).tolist()
    grid: dict[tuple[int, int], list[int]] = {}
    for segment, ((left, bottom), (right, top)) in enumerate(zip(low, high, strict=True)):
        for east in range(left, right + 1):
            for north in range(bottom, top + 1):
                grid.setdefault((east, north), []).append(segment)
    return grid
