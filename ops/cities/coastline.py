"""The sea within a box, from OpenStreetMap's coastline: land is on its left, water on its right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import shapely
from shapely.geometry.base import BaseGeometry

from ops.cities.extract import Point

ASIDE_DEG = 1e-6  # 0.1 m: from a segment's middle to its sides


def sea_within(box: shapely.Polygon, coastline: Sequence[Sequence[Point]]) -> BaseGeometry | None:
    """The part of a box that is sea. None without a coastline: then all is land.

    A coastline that ends inside the box is continued straight to the nearest edge.
    """
    lines = [shapely.LineString(points) for points in coastline if len(points) > 1]
    inside = [line for line in lines if line.intersects(box)]
    if not inside:
        return None
    clipped = [line.intersection(box) for line in inside]
    network = shapely.union_all([box.exterior, *clipped, *_continued(box, inside)])
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(network).tolist()))
    tree = shapely.STRtree(faces)
    votes = [0.0] * len(faces)
    for line in inside:
        for (x1, y1), (x2, y2) in pairwise(line.coords):
            length = math.hypot(x2 - x1, y2 - y1)
            if length == 0:
                continue
            right = (y2 - y1) / length * ASIDE_DEG, (x1 - x2) / length * ASIDE_DEG
            middle = (x1 + x2) / 2, (y1 + y2) / 2
            for side, vote in ((1, length), (-1, -length)):
                point = shapely.Point(middle[0] + side * right[0], middle[1] + side * right[1])
                for face in tree.query(point, predicate="within").tolist():
                    votes[face] += vote
    sea = [face for face, vote in zip(faces, votes, strict=True) if vote > 0]
    return shapely.union_all(sea) if sea else None


def _continued(
    box: shapely.Polygon, lines: Sequence[shapely.LineString]
) -> list[shapely.LineString]:
    """Lines from the coastline's loose ends inside the box to its edge."""
    ends: dict[Point, int] = {}
    for line in lines:
        for end in (line.coords[0], line.coords[-1]):
            point = (end[0], end[1])
            ends[point] = ends.get(point, 0) + 1
    continued = []
    for end, count in ends.items():
        place = shapely.Point(end)
        if count == 1 and box.contains(place):
            edge = box.exterior.interpolate(box.exterior.project(place))
            continued.append(shapely.LineString([place, edge]))
    return continued
