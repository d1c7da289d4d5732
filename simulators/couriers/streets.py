"""The street graph: the nearest street to a place, and the fastest way between two places.

Inside, coordinates are metres east (x) and north (y) of the graph's middle: over Florence's
14 x 12 km that plane is off by less than 0.1 %.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import igraph
import numpy as np
from numpy.typing import NDArray

import data

EARTH_M_PER_DEG = 111_195.0  # mean radius 6,371.0 km * pi / 180
NO_COURIERS = frozenset({"motorway", "motorway_link"})
WITH_LIGHTS = frozenset({"primary", "secondary", "tertiary"})
CELL_M = 100.0  # of the grid in which the nearest street is looked up
LIGHTS_SHARE = 3  # of the crossings of those streets, one in three has lights

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Street:
    """One edge of the graph, from node `u` to node `v`."""

    u: int
    v: int
    one_way: bool
    limit_mps: float
    major: bool
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


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a way, along one street. `lights` stand at its end."""

    points: tuple[Point, ...]
    limit_mps: float
    lights: bool


class Streets:
    """A city's streets, all of which can be reached from each other."""

    def __init__(self, middle: Point, streets: list[Street], node_points: list[Point]) -> None:
        """`middle` is (lon_deg, lat_deg); every node must be the end of some street."""
        self.streets = streets
        self._lon, self._lat = middle
        self._m_per_lon = EARTH_M_PER_DEG * math.cos(math.radians(self._lat))
        self._nodes = node_points
        self._graph, self._ways = _directed(len(node_points), streets)
        self._lights = _lights(streets)
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
        for rings in (1, 2, 4, 8, 16, 32, 64):
            place = self._nearest_among(self._within(x, y, rings), x, y)
            if place is not None and place.off_street_m <= rings * CELL_M:
                return place  # what lies outside these rings is further away
        raise ValueError(f"({x:.0f}, {y:.0f}) is too far from every street")

    def _within(self, x: float, y: float, rings: int) -> list[int]:
        east, north = math.floor(x / CELL_M), math.floor(y / CELL_M)
        span = range(-rings, rings + 1)
        cells = (self._grid.get((east + i, north + j), ()) for i in span for j in span)
        return [segment for cell in cells for segment in cell]

    def _nearest_among(self, segments: list[int], x: float, y: float) -> Place | None:
        if not segments:
            return None
        starts = self._starts[segments]
        steps = self._ends[segments] - starts
        there = np.array((x, y)) - starts
        share = np.clip((there * steps).sum(1) / np.maximum((steps * steps).sum(1), 1e-9), 0, 1)
        feet = starts + steps * share[:, None]
        distances = np.hypot(feet[:, 0] - x, feet[:, 1] - y)
        best = int(distances.argmin())
        index, segment = (int(part) for part in self._owner[segments[best]])
        along_m = self.streets[index].along_m[segment] + share[best] * np.hypot(*steps[best])
        point = (float(feet[best, 0]), float(feet[best, 1]))
        return Place(index, float(along_m), point, float(distances[best]))

    def way(self, start: Place, end: Place) -> list[Stretch]:
        """The fastest way from one place to another, keeping to one-way streets."""
        first, last = self.streets[start.street], self.streets[end.street]
        if start.street == end.street and (start.along_m <= end.along_m or not first.one_way):
            return [_stretch(first, start.along_m, end.along_m, lights=False)]
        leave = self._nearer_end(first, end.point, leaving=True)
        enter = self._nearer_end(last, start.point, leaving=False)
        goal_m = first.length_m if leave == first.v else 0.0
        from_m = last.length_m if enter == last.v else 0.0
        stretches = [_stretch(first, start.along_m, goal_m, lights=leave in self._lights)]
        for way in self._graph.get_shortest_path(leave, enter, weights="s", output="epath"):
            index, backwards = self._ways[way]
            street = self.streets[index]
            node = street.u if backwards else street.v
            ends = (street.length_m, 0.0) if backwards else (0.0, street.length_m)
            stretches.append(_stretch(street, *ends, lights=node in self._lights))
        stretches.append(_stretch(last, from_m, end.along_m, lights=False))
        return stretches

    def _nearer_end(self, street: Street, goal: Point, *, leaving: bool) -> int:
        if street.one_way:
            return street.v if leaving else street.u
        return min(street.u, street.v, key=lambda node: math.dist(self._nodes[node], goal))


@cache
def load_firenze() -> Streets:
    """Load Florence's streets that couriers may use."""
    return load_streets(data.firenze_road_nodes(), data.firenze_road_edges())


def load_streets(nodes_csv_gz: Path, edges_csv_gz: Path) -> Streets:
    """Load a street graph and keep its largest part in which every place reaches every other."""
    places = {int(r["node_id"]): (float(r["lon"]), float(r["lat"])) for r in _rows(nodes_csv_gz)}
    rows = [row for row in _rows(edges_csv_gz) if row["highway"] not in NO_COURIERS]
    whole = igraph.Graph(directed=True, n=max(places) + 1)
    ends = [(int(row["u"]), int(row["v"])) for row in rows]
    both = [(v, u) for (u, v), row in zip(ends, rows, strict=True) if row["oneway"] != "1"]
    whole.add_edges(ends + both)
    parts = whole.connected_components(mode="strong")
    largest = max(range(len(parts)), key=lambda part: len(parts[part]))
    number = {node: new for new, node in enumerate(parts[largest])}

    middle = tuple(np.mean([places[node] for node in number], axis=0).tolist())
    scale = (EARTH_M_PER_DEG * math.cos(math.radians(middle[1])), EARTH_M_PER_DEG)

    def metres(lon_deg: float, lat_deg: float) -> Point:
        return (lon_deg - middle[0]) * scale[0], (lat_deg - middle[1]) * scale[1]

    streets = [
        _street(row, number[u], number[v], [metres(*point) for point in _wkt_points(row)])
        for (u, v), row in zip(ends, rows, strict=True)
        if u in number and v in number
    ]
    return Streets((middle[0], middle[1]), streets, [metres(*places[node]) for node in number])


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _wkt_points(row: dict[str, str]) -> list[Point]:
    inside = row["geom_wkt"].removeprefix("LINESTRING(").removesuffix(")")
    pairs = (pair.split() for pair in inside.split(","))
    return [(float(lon), float(lat)) for lon, lat in pairs]


def _street(row: dict[str, str], u: int, v: int, points: list[Point]) -> Street:
    return Street(
        u=u,
        v=v,
        one_way=row["oneway"] == "1",
        limit_mps=float(row["assumed_kmh"]) / 3.6,
        major=row["highway"] in WITH_LIGHTS,
        points=tuple(points),
        along_m=_along(points),
    )


def _along(points: list[Point]) -> tuple[float, ...]:
    total, along = 0.0, [0.0]
    for before, after in pairwise(points):
        total += math.dist(before, after)
        along.append(total)
    return tuple(along)


def _directed(nodes: int, streets: list[Street]) -> tuple[Any, list[tuple[int, bool]]]:
    """The routing graph, and per edge of it (street, driven backwards)."""
    ways = [(index, False) for index in range(len(streets))]
    ways += [(index, True) for index, street in enumerate(streets) if not street.one_way]
    graph = igraph.Graph(directed=True, n=nodes)
    ends = [(streets[index].u, streets[index].v) for index, _ in ways]
    graph.add_edges(
        [(v, u) if backwards else (u, v) for (u, v), (_, backwards) in zip(ends, ways, strict=True)]
    )
    graph.es["s"] = [streets[index].length_m / streets[index].limit_mps for index, _ in ways]
    return graph, ways


def _lights(streets: list[Street]) -> frozenset[int]:
    """Nodes with traffic lights: chosen crossings of three and more streets, one of them major."""
    meeting: dict[int, int] = {}
    major: set[int] = set()
    for street in streets:
        for node in (street.u, street.v):
            meeting[node] = meeting.get(node, 0) + 1
            if street.major:
                major.add(node)
    crossings = (node for node in major if meeting[node] >= 3)
    return frozenset(node for node in crossings if node % LIGHTS_SHARE == 0)


def _segments(
    streets: list[Street],
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


def _stretch(street: Street, from_m: float, to_m: float, *, lights: bool) -> Stretch:
    low, high = min(from_m, to_m), max(from_m, to_m)
    inner = [p for p, a in zip(street.points, street.along_m, strict=True) if low < a < high]
    points = [_point_at(street, low), *inner, _point_at(street, high)]
    if to_m < from_m:
        points.reverse()
    return Stretch(tuple(points), street.limit_mps, lights)


def _point_at(street: Street, along_m: float) -> Point:
    along = np.asarray(street.along_m)
    xs, ys = zip(*street.points, strict=True)
    return float(np.interp(along_m, along, xs)), float(np.interp(along_m, along, ys))
