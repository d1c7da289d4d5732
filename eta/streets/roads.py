"""The fastest routes from everywhere to one point: one run of Dijkstra on the reversed graph.

An edge is a street in one direction: first all streets forwards, then the two-way streets
backwards. The cost of each edge is an argument, so that one graph serves every hour.

Where a turn is not allowed, the edge before it ends at a copy of the node, and from the copy lead
copies of the edges that may follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from eta.streets.graph import BannedTurn, StreetPoint, Streets

Floats = NDArray[np.float64]
NO_EDGE = -1
MIN_COST_S = 1e-9  # a sparse matrix drops a cost of 0


@dataclass(frozen=True, slots=True)
class EdgeSegment:
    """A part of an edge, in the direction of travel: `to_m` < `from_m` is backwards."""

    edge: int
    from_m: float
    to_m: float

    @property
    def length_m(self) -> float:
        """Its length."""
        return abs(self.to_m - self.from_m)


@dataclass(frozen=True, slots=True, eq=False)
class EdgeCosts:
    """The cost of each edge, arranged for runs of Dijkstra."""

    per_edge: Floats
    by_end: Floats  # in the order of the reversed graph
    per_m: float  # on average


class _Views(NamedTuple):
    by_start: memoryview[int]
    starts: memoryview[int]
    to_node: memoryview[int]


class RoadGraph:
    """A city's streets as a directed graph."""

    def __init__(self, streets: Streets) -> None:
        self.streets = streets
        all_streets = streets.streets
        two_way = [i for i, street in enumerate(all_streets) if not street.one_way]
        self.forwards = len(all_streets)
        self.street_of = np.array([*range(self.forwards), *two_way])
        self.is_backwards = is_backwards = np.arange(len(self.street_of)) >= self.forwards
        self._backwards = {street: self.forwards + n for n, street in enumerate(two_way)}
        u = np.array([street.u for street in all_streets])[self.street_of]
        v = np.array([street.v for street in all_streets])[self.street_of]
        self.from_node = np.where(is_backwards, v, u)
        self.to_node = np.where(is_backwards, u, v)
        self.node_of = np.arange(len(streets.nodes))  # per node, the one that it is a copy of
        self._ban_turns(streets.turns)
        self.length_m = np.array([street.length_m for street in all_streets])[self.street_of]
        self._nodes = np.int64(len(self.node_of))
        self.goal_node = len(self.node_of)  # stands for the goal of a run
        # The reversed graph in CSR form: a row per end node, a column per start node.
        self._order = np.lexsort((self.from_node, self.to_node))
        self._rows = np.searchsorted(self.to_node[self._order], np.arange(self._nodes + 1))
        self._columns = self.from_node[self._order].astype(np.int32)
        # The edges by their start node, and by their street.
        self._by_start = np.argsort(self.from_node, kind="stable")
        self._starts = np.searchsorted(self.from_node[self._by_start], np.arange(self._nodes + 1))
        # Single values are read from views: an array makes an object of its own for each.
        self._views = _Views(self._by_start.data, self._starts.data, self.to_node.data)
        self._by_street = np.argsort(self.street_of, kind="stable")
        self._street_starts = np.searchsorted(
            self.street_of[self._by_street], np.arange(self.forwards + 1)
        )
        # An index from (start node, end node) to the edge, and the few pairs with several edges.
        keys = self.from_node * self._nodes + self.to_node
        by_nodes = np.argsort(keys, kind="stable")
        self._keys, first, count = np.unique(keys[by_nodes], return_index=True, return_counts=True)
        self._first_edge = by_nodes[first]
        # The few pairs with several edges: the rank of each such edge's pair, and pair by pair.
        ranks = np.flatnonzero(count > 1)
        self._parallel_ranks = np.repeat(ranks, count[ranks])
        self._parallel_edges = np.concatenate(
            [by_nodes[first[rank] : first[rank] + count[rank]] for rank in ranks]
            or [np.empty(0, dtype=np.int64)]
        )

    def _ban_turns(self, turns: Sequence[BannedTurn]) -> None:
        """Add the copies of nodes and edges for turns that are not allowed."""
        banned: dict[int, set[int]] = {}  # edges after an edge
        for turn in turns:
            before = self._edges_of(turn.from_street, self.to_node, turn.via)
            after = self._edges_of(turn.to_street, self.from_node, turn.via)
            for edge in before:
                banned.setdefault(edge, set()).update(after)
        if not banned:
            return
        edges_from: dict[int, list[int]] = {int(self.to_node[edge]): [] for edge in banned}
        for edge, node in enumerate(self.from_node.tolist()):
            if node in edges_from:
                edges_from[node].append(edge)
        copies: list[tuple[int, int]] = []  # (edge, the node that its copy leads from)
        nodes = self.node_of.tolist()
        for edge, excluded in banned.items():
            via = int(self.to_node[edge])
            copies += [(one, len(nodes)) for one in edges_from[via] if one not in excluded]
            self.to_node[edge] = len(nodes)
            nodes.append(via)
        copied = np.array([edge for edge, _ in copies], dtype=np.int64)
        starts = np.array([node for _, node in copies], dtype=np.int64)
        self.node_of = np.array(nodes)
        self.street_of = np.append(self.street_of, self.street_of[copied])
        self.is_backwards = np.append(self.is_backwards, self.is_backwards[copied])
        self.from_node = np.append(self.from_node, starts)
        self.to_node = np.append(self.to_node, self.to_node[copied])

    def _edges_of(self, street: int, ends: NDArray[np.int64], node: int) -> list[int]:
        """The edges of a street that have this node at this end."""
        edges = [self.edge(street, backwards=False), self.edge(street, backwards=True)]
        return [edge for edge in edges if edge is not None and ends[edge] == node]

    def edge(self, street: int, *, backwards: bool) -> int | None:
        """The edge of a street in a direction; None against a one-way street."""
        return self._backwards.get(street) if backwards else street

    def costs(self, edge_s: Floats) -> EdgeCosts:
        """Arrange the cost of each edge for runs."""
        by_end = np.maximum(edge_s[self._order], MIN_COST_S)
        return EdgeCosts(edge_s, by_end, float(edge_s.sum() / self.length_m.sum()))

    def shortest_path_tree(
        self, goal: StreetPoint, edge_s: Floats, limit_s: float = math.inf
    ) -> ShortestPathTree:
        """The fastest routes to `goal` from everywhere within `limit_s` of it.

        `edge_s` are seconds per edge. The run takes as long as the places that it reaches are many.
        """
        remaining_s, next_nodes, last = self.next_nodes(goal, self.costs(edge_s), limit_s)
        next_edge = self._next_edges(next_nodes, edge_s)
        return ShortestPathTree(self, goal, edge_s, remaining_s, next_edge, last)

    def next_nodes(
        self, goal: StreetPoint, costs: EdgeCosts, limit_s: float
    ) -> tuple[Floats, NDArray[np.int32], dict[int, EdgeSegment]]:
        """Per node the cost of the fastest route and its next node; and the last segments.

        The next node is `goal_node` before the goal, and negative without a route.
        """
        length_m = self.streets.streets[goal.street].length_m
        first, end = self._street_starts[goal.street : goal.street + 2].tolist()
        ends = [
            (
                int(self.from_node[edge]),
                EdgeSegment(edge, length_m if self.is_backwards[edge] else 0.0, goal.along_m),
            )
            for edge in self._by_street[first:end].tolist()
        ]
        last_costs = [max(self.cost_s(segment, costs.per_edge), MIN_COST_S) for _, segment in ends]
        columns = np.append(self._columns, np.array([node for node, _ in ends], dtype=np.int32))
        rows = np.append(self._rows, len(columns)).astype(np.int32)
        size = self.goal_node + 1
        remaining_s, next_nodes = dijkstra(
            csr_array((np.append(costs.by_end, last_costs), columns, rows), shape=(size, size)),
            indices=self.goal_node,
            return_predecessors=True,
            limit=limit_s,
        )
        return remaining_s[:-1], next_nodes[:-1], dict(ends)

    def _next_edges(self, predecessors: NDArray[np.int32], edge_s: Floats) -> NDArray[np.int64]:
        """Per node, the edge to the next node of its route."""
        next_edge = np.full(len(predecessors), NO_EDGE)
        nodes = np.flatnonzero((predecessors >= 0) & (predecessors < self._nodes))
        keys = nodes * self._nodes + predecessors[nodes]
        next_edge[nodes] = self._fastest_edges(edge_s)[np.searchsorted(self._keys, keys)]
        return next_edge

    def _fastest_edges(self, edge_s: Floats) -> NDArray[np.int64]:
        """The fastest edge of each pair of nodes."""
        fastest = self._first_edge.copy()
        slowest_first = np.argsort(edge_s[self._parallel_edges], kind="stable")[::-1]
        fastest[self._parallel_ranks[slowest_first]] = self._parallel_edges[slowest_first]
        return fastest

    def edge_between(self, node: int, after: int, costs: EdgeCosts) -> int:
        """The edge from a node to the next one, the cheapest of several."""
        by_start, starts, to_node = self._views
        first, end = starts[node], starts[node + 1]
        found = [edge for edge in by_start[first:end].tolist() if to_node[edge] == after]
        return found[0] if len(found) == 1 else min(found, key=lambda e: float(costs.per_edge[e]))

    def whole_segment(self, edge: int) -> EdgeSegment:
        """All of an edge."""
        length_m = float(self.length_m[edge])
        ends = (length_m, 0.0) if self.is_backwards[edge] else (0.0, length_m)
        return EdgeSegment(edge, *ends)

    def departure_nodes(self, starts: Iterable[StreetPoint]) -> list[int]:
        """The nodes at the ends of the possible first segments from these places."""
        edges = (
            self.edge(one.street, backwards=backwards)
            for one in starts
            for backwards in (False, True)
        )
        return [int(self.to_node[edge]) for edge in edges if edge is not None]

    def departures(
        self,
        start: StreetPoint,
        goal: StreetPoint,
        edge_s: Floats,
        remaining_s: Callable[[int], float],
    ) -> Iterator[tuple[float, EdgeSegment, int | None]]:
        """The possible first segments: (total seconds, segment, node at its end).

        `remaining_s(node)` is the cost from a node to `goal`. The node is None for a segment that
        leads straight to the goal along its street.
        """
        length_m = self.streets.streets[start.street].length_m
        for backwards, end_m in ((False, length_m), (True, 0.0)):
            edge = self.edge(start.street, backwards=backwards)
            if edge is None:
                continue
            if start.street == goal.street and (goal.along_m < start.along_m) == backwards:
                direct = EdgeSegment(edge, start.along_m, goal.along_m)
                yield self.cost_s(direct, edge_s), direct, None
            segment = EdgeSegment(edge, start.along_m, end_m)
            node = int(self.to_node[edge])
            yield self.cost_s(segment, edge_s) + remaining_s(node), segment, node

    def cost_s(self, segment: EdgeSegment, edge_s: Floats | memoryview[float]) -> float:
        """The cost of a part of an edge."""
        edge_m = self.length_m[segment.edge]
        return float(edge_s[segment.edge] * (segment.length_m / edge_m if edge_m else 0.0))


@dataclass(frozen=True, slots=True)
class ShortestPathTree:
    """Per node, the cost of the fastest route to the goal, and its first edge."""

    roads: RoadGraph
    goal: StreetPoint
    edge_s: Floats
    remaining_s: Floats
    next_edge: NDArray[np.int64]
    last_segments: dict[int, EdgeSegment]  # from an end of the goal's street to the goal

    def seconds_from(self, start: StreetPoint) -> float:
        """The cost of the fastest route from `start`; infinite if there is none."""
        return min(seconds for seconds, _, _ in self.departures(start))

    def route_from(self, start: StreetPoint) -> list[EdgeSegment]:
        """The fastest route from `start`, edge by edge. Raises ValueError if there is none."""
        seconds, first, node = min(self.departures(start), key=lambda one: one[0])
        if seconds == float("inf"):
            raise ValueError("there is no route")
        return [first] if node is None else [first, *self.route_from_node(node)]

    def departures(self, start: StreetPoint) -> Iterator[tuple[float, EdgeSegment, int | None]]:
        """The possible first segments, as `RoadGraph.departures` yields them."""
        return self.roads.departures(
            start, self.goal, self.edge_s, lambda node: float(self.remaining_s[node])
        )

    def route_from_node(self, node: int) -> Iterator[EdgeSegment]:
        """The fastest route from a node that has one, edge by edge."""
        roads = self.roads
        while (edge := int(self.next_edge[node])) != NO_EDGE:
            yield roads.whole_segment(edge)
            node = int(roads.to_node[edge])
        yield self.last_segments[node]
