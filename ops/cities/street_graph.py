"""The graph of the streets within bounds: its largest strongly connected part, in CSV files."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from data.cities import Bounds
from doorstep.geo import distance_m
from eta.streets import largest_component
from ops.cities.errors import CityError
from ops.cities.extract import Point, WayLine
from ops.cities.tags import direction_of, level_of, speed_kmh

NODE_COLUMNS = ("node_id", "lon", "lat", "in_main_scc")
EDGE_COLUMNS = (
    "edge_id", "u", "v", "length_m", "highway", "oneway", "assumed_kmh", "name", "bridge",
    "tunnel", "geom_wkt",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Edge:
    """A street between two junctions. A one-way street leads from `u` to `v`: OSM nodes."""

    way_id: int
    tags: dict[str, str]
    u: int
    v: int
    one_way: bool
    points: list[Point]

    @property
    def length_m(self) -> float:
        return sum(distance_m(a, b) for a, b in pairwise(self.points))


@dataclass(frozen=True, slots=True)
class StreetGraph:
    """Edges, and the place of each node."""

    edges: list[Edge]
    places: dict[int, Point]


def build_graph(ways: Sequence[WayLine], bounds: Bounds) -> StreetGraph:
    """Split ways at junctions and at the bounds, and keep the largest strongly connected part.

    Raises CityError if no street is within the bounds.
    """
    pieces = [piece for way in ways for piece in _inside(way, bounds)]
    uses = Counter(node for piece in pieces for node in piece.nodes)
    ends = {node for piece in pieces for node in (piece.nodes[0], piece.nodes[-1])}
    junctions = ends | {node for node, count in uses.items() if count > 1}
    edges = [edge for piece in pieces for edge in _split(piece, junctions)]
    kept = _largest_component(edges)
    if not kept:
        raise CityError(
            "there are no connected streets within the bounds: check --bounds W,S,E,N (degrees, "
            "longitude first), or leave it out"
        )
    edges = [edge for edge in edges if edge.u in kept and edge.v in kept]
    places = {}
    for edge in edges:
        places[edge.u], places[edge.v] = edge.points[0], edge.points[-1]
    return StreetGraph(edges, places)


def write_graph(graph: StreetGraph, nodes_csv_gz: Path, edges_csv_gz: Path) -> dict[int, int]:
    """Write the files; return the number of each node."""
    numbers = {node: number for number, node in enumerate(graph.places)}
    with gzip.open(nodes_csv_gz, "wt", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(NODE_COLUMNS)
        for node, (lon_deg, lat_deg) in graph.places.items():
            rows.writerow((numbers[node], f"{lon_deg:.7f}", f"{lat_deg:.7f}", 1))
    with gzip.open(edges_csv_gz, "wt", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(EDGE_COLUMNS)
        for number, edge in enumerate(graph.edges):
            rows.writerow(_edge_row(number, edge, numbers))
    return numbers


def _edge_row(number: int, edge: Edge, numbers: dict[int, int]) -> tuple[object, ...]:
    level = level_of(edge.tags)
    points = ",".join(f"{lon_deg:.7f} {lat_deg:.7f}" for lon_deg, lat_deg in edge.points)
    return (
        number,
        numbers[edge.u],
        numbers[edge.v],
        f"{edge.length_m:.1f}",
        edge.tags["highway"],
        int(edge.one_way),
        f"{speed_kmh(edge.tags):g}",
        edge.tags.get("name", ""),
        "yes" if level > 0 else "",
        "yes" if level < 0 else "",
        f"LINESTRING({points})",
    )


def _inside(way: WayLine, bounds: Bounds) -> Iterator[WayLine]:
    """Yield the parts of a way between nodes within the bounds, in its direction of travel."""
    if direction_of(way.tags) < 0:
        way = WayLine(way.way_id, way.tags, way.nodes[::-1], way.points[::-1])
    nodes: list[int] = []
    points: list[Point] = []
    for node, point in zip(way.nodes, way.points, strict=True):
        if bounds.contains(*point):
            if not nodes or nodes[-1] != node:
                nodes.append(node)
                points.append(point)
            continue
        if len(nodes) > 1:
            yield WayLine(way.way_id, way.tags, nodes, points)
        nodes, points = [], []
    if len(nodes) > 1:
        yield WayLine(way.way_id, way.tags, nodes, points)


def _split(way: WayLine, junctions: set[int]) -> Iterator[Edge]:
    """Split a way at junctions, and a loop in its middle."""
    cuts = [index for index, node in enumerate(way.nodes) if node in junctions]
    for first, last in pairwise(cuts):
        if way.nodes[first] == way.nodes[last] and last - first > 1:
            middle = (first + last) // 2
            yield _edge(way, first, middle)
            yield _edge(way, middle, last)
        else:
            yield _edge(way, first, last)


def _edge(way: WayLine, first: int, last: int) -> Edge:
    return Edge(
        way.way_id,
        way.tags,
        way.nodes[first],
        way.nodes[last],
        direction_of(way.tags) != 0,
        way.points[first : last + 1],
    )


def _largest_component(edges: Sequence[Edge]) -> set[int]:
    """The nodes of the largest strongly connected part. Empty without a connection."""
    nodes = sorted({node for edge in edges for node in (edge.u, edge.v)})
    if not nodes:
        return set()
    number = {node: index for index, node in enumerate(nodes)}
    pairs = [(number[edge.u], number[edge.v]) for edge in edges]
    pairs += [(v, u) for (u, v), edge in zip(pairs, edges, strict=True) if not edge.one_way]
    kept = largest_component(len(nodes), pairs).tolist()
    return {nodes[index] for index in kept} if len(kept) > 1 else set()
