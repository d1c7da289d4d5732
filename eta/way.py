"""The way of a route as a line: points along its streets, few enough to send."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
import shapely

from eta.streets import EdgeSegment, Point, RoadGraph, Street, Streets

LEAST_TOLERANCE_M = 2.0  # narrower than any street
FEW_POINTS = 6  # are sent as they are: a street's, as a rule
DECIMALS = 5  # of a degree: about 1 m


def way_points(
    streets: Streets, roads: RoadGraph, route: Sequence[EdgeSegment], at_most: int
) -> list[Point]:
    """The points of a route, longitude first, simplified to at most so many."""
    line: list[Point] = []
    for segment in route:
        street = streets.streets[int(roads.street_of[segment.edge])]
        part = _part_of(street, segment.from_m, segment.to_m)
        line += part[1:] if line and line[-1] == part[0] else part
    tolerance_m = LEAST_TOLERANCE_M
    if len(line) > FEW_POINTS:
        whole = line
        line = _simplified(whole, tolerance_m)
        while len(line) > at_most:
            tolerance_m *= 2
            line = _simplified(whole, tolerance_m)
    points = [_rounded(streets.to_lon_lat(x, y)) for x, y in line]
    return [point for n, point in enumerate(points) if n == 0 or point != points[n - 1]]


def _part_of(street: Street, from_m: float, to_m: float) -> list[Point]:
    """The points of a street between two distances from its start, in the direction of travel."""
    low, high = min(from_m, to_m), max(from_m, to_m)
    first, last = bisect_left(street.along_m, low), bisect_right(street.along_m, high)
    points = list(street.points[first:last])
    if not points or street.along_m[first] != low:  # crossings are points of the street
        points.insert(0, _at(street, low))
    if street.along_m[last - 1] != high:
        points.append(_at(street, high))
    return points[::-1] if to_m < from_m else points


def _at(street: Street, along_m: float) -> Point:
    """The point at a distance from a street's start."""
    after = min(max(bisect_left(street.along_m, along_m), 1), len(street.points) - 1)
    start_m, end_m = street.along_m[after - 1 : after + 1]
    share = (along_m - start_m) / (end_m - start_m) if end_m > start_m else 0.0
    (x1, y1), (x2, y2) = street.points[after - 1 : after + 1]
    return x1 + (x2 - x1) * share, y1 + (y2 - y1) * share


def _simplified(line: Sequence[Point], tolerance_m: float) -> list[Point]:
    found = shapely.simplify(shapely.linestrings(np.array(line)), tolerance_m)
    return [(float(x), float(y)) for x, y in shapely.get_coordinates(found)]


def _rounded(lon_lat: Point) -> Point:
    return round(lon_lat[0], DECIMALS), round(lon_lat[1], DECIMALS)
