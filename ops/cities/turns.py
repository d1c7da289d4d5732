"""Turn restrictions: from relations of ways to pairs of the graph's edges."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from eta.streets import BannedTurn, RoadGraph, Streets, largest_component
from ops.cities.extract import Restriction
from ops.cities.street_graph import Edge, StreetGraph

TURN_COLUMNS = ("from_edge", "via", "to_edge")
Turn = tuple[int, int, int]  # edge, OSM node, edge


def find_turns(graph: StreetGraph, restrictions: Sequence[Restriction]) -> list[Turn]:
    """The turns that restrictions forbid, between numbered edges.

    `only` forbids all others from the same way; it is dropped where its own target is missing.
    """
    at_node: dict[int, list[int]] = defaultdict(list)
    for number, edge in enumerate(graph.edges):
        at_node[edge.u].append(number)
        at_node[edge.v].append(number)
    return sorted({turn for one in restrictions for turn in _turns(graph.edges, at_node, one)})


def _turns(
    edges: Sequence[Edge], at_node: dict[int, list[int]], restriction: Restriction
) -> Iterator[Turn]:
    here = sorted(set(at_node.get(restriction.via, ())))
    via = restriction.via
    starts = [
        number
        for number in here
        if edges[number].way_id in restriction.from_ways and _may_end_at(edges[number], via)
    ]
    leaving = [number for number in here if _may_start_at(edges[number], via)]
    targets = [number for number in leaving if edges[number].way_id in restriction.to_ways]
    if not targets:
        return
    banned = targets
    if restriction.kind == "only":
        banned = [number for number in leaving if number not in targets]
    for start in starts:
        for target in banned:
            yield start, via, target


def _may_end_at(edge: Edge, node: int) -> bool:
    return edge.v == node or (edge.u == node and not edge.one_way)


def _may_start_at(edge: Edge, node: int) -> bool:
    return edge.u == node or (edge.v == node and not edge.one_way)


def write_turns(turns: Sequence[Turn], numbers: dict[int, int], turns_csv_gz: Path) -> None:
    """Write the file. Nodes get their numbers."""
    with gzip.open(turns_csv_gz, "wt", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(TURN_COLUMNS)
        rows.writerows((start, numbers[via], target) for start, via, target in turns)


def usable_turns(streets: Streets, turns: Sequence[BannedTurn]) -> list[BannedTurn]:
    """Drop turns that would cut a street off: from everywhere, everywhere must stay reachable."""
    turns = list(turns)
    while turns:
        limited = Streets(streets.middle, streets.streets, streets.nodes, streets.zone, turns)
        roads = RoadGraph(limited)
        outside = _outside_largest(roads)
        if not outside:
            break
        cut_off = set(roads.node_of[list(outside)].tolist())
        kept = [one for one in turns if not cut_off & _nodes_near(streets, one)]
        turns = kept if len(kept) < len(turns) else []
    return turns


def _outside_largest(roads: RoadGraph) -> set[int]:
    size, edges = len(roads.node_of), np.column_stack((roads.from_node, roads.to_node))
    return set(range(size)).difference(largest_component(size, edges).tolist())


def _nodes_near(streets: Streets, turn: BannedTurn) -> set[int]:
    ends = (streets.streets[one] for one in (turn.from_street, turn.to_street))
    return {turn.via, *(node for street in ends for node in (street.u, street.v))}
