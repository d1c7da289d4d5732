"""The streets of a city, and the nearest point on any of them.

Coordinates are metres east (x) and north (y) of the graph's middle: over a city of 14 x 12 km
this plane is off by less than 0.1 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from zoneinfo import ZoneInfo

import numpy as np
import shapely
from numpy.typing import NDArray

from doorstep.geo import M_PER_DEG, lon_difference_deg, m_per_lon_deg, wrap_lon_deg

MAX_NEAREST_M = 6_400.0
CANDIDATES_WITHIN_M = 100.0  # beyond it, the street next to the nearest one is no candidate

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Street:
    """One street between the nodes `u` and `v`. `highway` is OpenStreetMap's class."""

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
class BannedTurn:
    """A turn that is not allowed: from a street into another, at the node that they share."""

    from_street: int
    via: int
    to_street: int


@dataclass(frozen=True, slots=True)
class StreetPoint:
    """A location snapped to a street: the nearest point on it, and the distance to it."""

    street: int
    along_m: float
    point: Point
    off_street_m: float


class Plane:
    """Metres east (x) and north (y) of a place, (lon_deg, lat_deg)."""

    def __init__(self, middle: Point) -> None:
        self.middle = middle
        self._lon, self._lat = middle
        self._m_per_lon = m_per_lon_deg(self._lat)

    def to_xy(self, lon_deg: float, lat_deg: float) -> Point:
        """Degrees to metres."""
        return (
            lon_difference_deg(lon_deg, self._lon) * self._m_per_lon,
            (lat_deg - self._lat) * M_PER_DEG,
        )

    def to_lon_lat(self, x: float, y: float) -> Point:
        """Metres to degrees, longitude first."""
        return wrap_lon_deg(self._lon + x / self._m_per_lon), self._lat + y / M_PER_DEG


class Streets(Plane):
    """A city's streets, strongly connected, with a spatial index over their segments."""

    def __init__(
        self,
        middle: Point,
        streets: Sequence[Street],
        nodes: Sequence[Point],
        zone: ZoneInfo = ZoneInfo("UTC"),  # noqa: B008 - a constant
        turns: Sequence[BannedTurn] = (),
    ) -> None:
        """`middle` is (lon_deg, lat_deg); every node must be the end of some street."""
        super().__init__(middle)
        self.turns = turns
        self.streets = streets
        self.nodes = nodes
        self.zone = zone
        self._segments, self._owner = _segments(streets)
        self._tree = shapely.STRtree(
            cast("NDArray[np.object_]", shapely.linestrings(self._segments))
        )

    def nearest(self, x: float, y: float) -> StreetPoint:
        """The nearest point on any street. Raises ValueError over 6.4 km outside the city."""
        nearest = self.nearest_within(x, y, MAX_NEAREST_M)
        if nearest is None:
            raise ValueError(f"({x:.0f}, {y:.0f}) is too far from every street")
        return nearest

    def nearest_within(self, x: float, y: float, max_m: float) -> StreetPoint | None:
        """The nearest point on any street, if it is within `max_m`."""
        return self._nearest_within(shapely.points(x, y), x, y, max_m)

    def _nearest_within(
        self, point: shapely.Point, x: float, y: float, max_m: float
    ) -> StreetPoint | None:
        found = self._tree.query_nearest(point, max_distance=max_m, all_matches=False)
        return self._snap(int(found[0]), x, y) if len(found) else None

    def candidates_within(
        self, x: float, y: float, max_m: float, blur_m: float
    ) -> list[StreetPoint]:
        """The nearest street, and those at most `blur_m` farther: the streets a fix may be on.

        Nearest first. Only the nearest one where it is more than 100 m away.
        """
        point = shapely.points(x, y)
        nearest = self._nearest_within(point, x, y, max_m)
        if nearest is None:
            return []
        reach_m = nearest.off_street_m + blur_m
        if reach_m > CANDIDATES_WITHIN_M:
            return [nearest]
        segments = self._tree.query(point, predicate="dwithin", distance=min(reach_m, max_m))
        snapped = [nearest, *(self._snap(segment, x, y) for segment in segments.tolist())]
        candidates: dict[int, StreetPoint] = {}
        for one in sorted(snapped, key=lambda one: one.off_street_m):
            candidates.setdefault(one.street, one)
        return [*candidates.values()]

    def _snap(self, number: int, x: float, y: float) -> StreetPoint:
        """The point of a segment that is nearest to (x, y)."""
        (x1, y1), (x2, y2) = self._segments[number].tolist()
        east, north = x2 - x1, y2 - y1
        square = max(east * east + north * north, 1e-9)
        share = min(1.0, max(0.0, ((x - x1) * east + (y - y1) * north) / square))
        point = (x1 + east * share, y1 + north * share)
        street, segment = self._owner[number].tolist()
        start_m, end_m = self.streets[street].along_m[segment : segment + 2]
        off_street_m = math.hypot(point[0] - x, point[1] - y)
        return StreetPoint(street, start_m + share * (end_m - start_m), point, off_street_m)


def _segments(streets: Sequence[Street]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """All straight segments as (start, end), and the (street, segment) of each."""
    ends = [
        (start, end)
        for street in streets
        for start, end in zip(street.points[:-1], street.points[1:], strict=True)
    ]
    owner = [
        (index, segment)
        for index, street in enumerate(streets)
        for segment in range(len(street.points) - 1)
    ]
    return np.array(ends), np.array(owner)
