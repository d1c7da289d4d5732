"""Read the street graph from CSV files: nodes (node_id, lon, lat), edges (u, v, highway, oneway,
assumed_kmh, geom_wkt), and the turns that are not allowed (from_edge, via, to_edge)."""

from __future__ import annotations

import csv
import gzip
import math
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from data.cities import CityFolder
from doorstep.geo import lon_difference_deg, wrap_lon_deg
from eta.streets.components import largest_component
from eta.streets.graph import BannedTurn, Plane, Point, Street, Streets

EXCLUDED = frozenset({"motorway", "motorway_link"})


@cache
def load_streets(city: CityFolder) -> Streets:
    """Load a city's streets that couriers may use, once per process."""
    return read_streets(city.road_nodes, city.road_edges, city.zone, city.road_turns)


def read_streets(
    nodes_csv_gz: Path, edges_csv_gz: Path, zone: ZoneInfo, turns_csv_gz: Path | None = None
) -> Streets:
    """Read a street graph, and keep its largest strongly connected component."""
    # The edges are read twice: their rows would take more memory than the graph.
    directed: list[tuple[int, int]] = []
    for row in _usable(edges_csv_gz):
        u, v = int(row["u"]), int(row["v"])
        directed += [(u, v)] if row["oneway"] == "1" else [(u, v), (v, u)]
    kept = largest_component(max(map(max, directed)) + 1, directed)
    number = {node: new for new, node in enumerate(kept.tolist())}
    del directed
    lon_lat = [(0.0, 0.0)] * len(number)
    for row in _rows(nodes_csv_gz):
        if (new := number.get(int(row["node_id"]))) is not None:
            lon_lat[new] = float(row["lon"]), float(row["lat"])

    middle = _middle(lon_lat)
    plane = Plane(middle)
    streets: list[Street] = []
    street_by_edge: dict[int, int] = {}
    ends: dict[Point, Point] = {}
    for row in _usable(edges_csv_gz):
        start, end = number.get(int(row["u"])), number.get(int(row["v"]))
        if start is not None and end is not None:
            street_by_edge[int(row["edge_id"])] = len(streets)
            points = [plane.to_xy(*one) for one in _wkt_points(row)]
            # streets share the points at their ends
            points[0], points[-1] = (ends.setdefault(one, one) for one in (points[0], points[-1]))
            streets.append(_street(row, start, end, points))
    nodes = [plane.to_xy(*place) for place in lon_lat]
    turns = _turns(turns_csv_gz, street_by_edge, number)
    return Streets(middle, streets, nodes, zone, turns)


def _usable(edges_csv_gz: Path) -> Iterator[dict[str, str]]:
    return (row for row in _rows(edges_csv_gz) if row["highway"] not in EXCLUDED)


def _middle(places: list[Point]) -> Point:
    """The mean place. Longitudes are taken from the first one's, across ±180°."""
    first_deg = places[0][0]
    east_deg = float(np.mean([lon_difference_deg(lon_deg, first_deg) for lon_deg, _ in places]))
    return wrap_lon_deg(first_deg + east_deg), float(np.mean([lat_deg for _, lat_deg in places]))


def _turns(
    path: Path | None, street_by_edge: dict[int, int], number: dict[int, int]
) -> list[BannedTurn]:
    """The turns between streets that are kept."""
    if path is None or not path.exists():
        return []
    found = (
        (
            street_by_edge.get(int(row["from_edge"])),
            number.get(int(row["via"])),
            street_by_edge.get(int(row["to_edge"])),
        )
        for row in _rows(path)
    )
    return [
        BannedTurn(start, via, end)
        for start, via, end in found
        if start is not None and via is not None and end is not None
    ]


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
        highway=sys.intern(row["highway"]),
        points=tuple(points),
        along_m=_along(points),
    )


def _along(points: list[Point]) -> tuple[float, ...]:
    total, along = 0.0, [0.0]
    for before, after in pairwise(points):
        total += math.dist(before, after)
        along.append(total)
    return tuple(along)
