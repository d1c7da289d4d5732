"""Read the street graph from CSV files: nodes (node_id, lon, lat) and edges (u, v, highway, oneway,
assumed_kmh, geom_wkt)."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

import data
from doorstep.geo import M_PER_DEG, m_per_lon_deg
from eta.streets.graph import Point, Street, Streets

EXCLUDED = frozenset({"motorway", "motorway_link"})


@cache
def load_firenze() -> Streets:
    """Load Florence's streets that couriers may use, once per process."""
    return read_streets(
        data.firenze_road_nodes(), data.firenze_road_edges(), ZoneInfo("Europe/Rome")
    )


def read_streets(nodes_csv_gz: Path, edges_csv_gz: Path, zone: ZoneInfo) -> Streets:
    """Read a street graph, and keep its largest strongly connected component."""
    lon_lat = {int(r["node_id"]): (float(r["lon"]), float(r["lat"])) for r in _rows(nodes_csv_gz)}
    rows = [row for row in _rows(edges_csv_gz) if row["highway"] not in EXCLUDED]
    ends = [(int(row["u"]), int(row["v"])) for row in rows]
    reverse = [(v, u) for (u, v), row in zip(ends, rows, strict=True) if row["oneway"] != "1"]
    kept = _largest_component(max(lon_lat) + 1, ends + reverse)
    number = {node: new for new, node in enumerate(kept)}

    middle = tuple(np.mean([lon_lat[node] for node in number], axis=0).tolist())
    scale = (m_per_lon_deg(middle[1]), M_PER_DEG)

    def metres(lon_deg: float, lat_deg: float) -> Point:
        return (lon_deg - middle[0]) * scale[0], (lat_deg - middle[1]) * scale[1]

    streets = [
        _street(row, number[u], number[v], [metres(*point) for point in _wkt_points(row)])
        for (u, v), row in zip(ends, rows, strict=True)
        if u in number and v in number
    ]
    nodes = [metres(*lon_lat[node]) for node in number]
    return Streets((middle[0], middle[1]), streets, nodes, zone)


def _largest_component(nodes: int, ends: list[tuple[int, int]]) -> list[int]:
    """The nodes of the largest strongly connected component."""
    pairs = np.array(ends)
    edges = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(nodes, nodes))
    _, component = connected_components(edges, directed=True, connection="strong")
    kept: list[int] = np.flatnonzero(component == np.bincount(component).argmax()).tolist()
    return kept


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
        highway=row["highway"],
        points=tuple(points),
        along_m=_along(points),
    )


def _along(points: list[Point]) -> tuple[float, ...]:
    total, along = 0.0, [0.0]
    for before, after in pairwise(points):
        total += math.dist(before, after)
        along.append(total)
    return tuple(along)
