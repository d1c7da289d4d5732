"""The fastest ways from everywhere to one place: one run of Dijkstra on the reversed graph.

A `way` is a street in one direction: all streets forwards, then those that may be driven
backwards too. What each way costs is given with the question, so that one graph serves every hour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from eta.streets.graph import Place, Streets

Floats = NDArray[np.float64]
NO_WAY = -1
LEAST_S = 1e-9  # a cost of 0 would be no edge at all


@dataclass(frozen=True, slots=True)
class EdgeSegment:
    """A part of a street, in the direction of travel: `to_m` < `from_m` is backwards."""

    way: int
    from_m: float
    to_m: float

    @property
    def length_m(self) -> float:
        """How long it is."""
        return abs(self.to_m - self.from_m)


class Roads:
    """The ways of a city, ready to be asked."""

    def __init__(self, streets: Streets) -> None:
        self.streets = streets
        all_streets = streets.streets
        two_way = [i for i, street in enumerate(all_streets) if not street.one_way]
        self.forwards = len(all_streets)
        self.street_of = np.array([*range(self.forwards), *two_way])
        is_backwards = np.arange(len(self.street_of)) >= self.forwards
        self._backwards = {street: self.forwards + n for n, street in enumerate(two_way)}
        u = np.array([street.u for street in all_streets])[self.street_of]
        v = np.array([street.v for street in all_streets])[self.street_of]
        self.from_node = np.where(is_backwards, v, u)
        self.to_node = np.where(is_backwards, u, v)
        self.length_m = np.array([street.length_m for street in all_streets])[self.street_of]
        self._nodes = np.int64(len(streets.nodes))
        # Reversed, row by row: from where a way ends to where it begins.
        self._order = np.lexsort((self.from_node, self.to_node))
        self._rows = np.searchsorted(self.to_node[self._order], np.arange(self._nodes + 1))
        self._columns = self.from_node[self._order].astype(np.int32)
        # To find a way by its two nodes, and the few that share both.
        keys = self.from_node * self._nodes + self.to_node
        by_nodes = np.argsort(keys, kind="stable")
        self._keys, first, count = np.unique(keys[by_nodes], return_index=True, return_counts=True)
        self._only_way = by_nodes[first]
        self._parallel = [
            (rank, by_nodes[first[rank] : first[rank] + count[rank]])
            for rank in np.flatnonzero(count > 1)
        ]

    def way(self, street: int, *, backwards: bool) -> int | None:
        """The way of a street in a direction, if it may be driven."""
        return self._backwards.get(street) if backwards else street

    def towards(self, place: Place, way_s: Floats) -> ShortestPathTree:
        """The fastest ways to `place` from everywhere, a way costing `way_s` seconds."""
        street = self.streets.streets[place.street]
        ends = [(street.u, EdgeSegment(place.street, 0.0, place.along_m))]
        backwards = self.way(place.street, backwards=True)
        if backwards is not None:
            back = EdgeSegment(backwards, street.length_m, place.along_m)
            ends.append((street.v, back))
        costs = [max(self.cost_s(part, way_s), LEAST_S) for _, part in ends]
        columns = np.append(self._columns, np.array([node for node, _ in ends], dtype=np.int32))
        rows = np.append(self._rows, len(columns)).astype(np.int32)
        size = int(self._nodes) + 1  # the last row is the place
        weights = np.append(np.maximum(way_s[self._order], LEAST_S), costs)
        left_s, before = dijkstra(
            csr_array((weights, columns, rows), shape=(size, size)),
            indices=size - 1,
            return_predecessors=True,
        )
        return ShortestPathTree(
            self, place, way_s, left_s[:-1], self._next_ways(before[:-1], way_s), dict(ends)
        )

    def _next_ways(self, before: NDArray[np.int32], way_s: Floats) -> NDArray[np.int64]:
        """Per node the way to the node that comes next."""
        wanted = np.arange(self._nodes) * self._nodes + before
        rank = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        is_way = (before >= 0) & (before < self._nodes) & (self._keys[rank] == wanted)
        fastest = self._only_way.copy()
        for one, ways in self._parallel:
            fastest[one] = ways[way_s[ways].argmin()]
        return np.where(is_way, fastest[rank], NO_WAY)

    def leaving(
        self, start: Place, goal: Place, way_s: Floats, left_s: Callable[[int], float]
    ) -> Iterator[tuple[float, EdgeSegment, int | None]]:
        """The ways to begin with: what each costs in all, and the node it leads to.

        `left_s` tells what a node's way to `goal` costs. No node: straight there, along its street.
        """
        length_m = self.streets.streets[start.street].length_m
        for backwards, end_m in ((False, length_m), (True, 0.0)):
            way = self.way(start.street, backwards=backwards)
            if way is None:
                continue
            if start.street == goal.street and (goal.along_m < start.along_m) == backwards:
                direct = EdgeSegment(way, start.along_m, goal.along_m)
                yield self.cost_s(direct, way_s), direct, None
            part = EdgeSegment(way, start.along_m, end_m)
            node = int(self.to_node[way])
            yield self.cost_s(part, way_s) + left_s(node), part, node

    def cost_s(self, part: EdgeSegment, way_s: Floats) -> float:
        """What a part of a way costs."""
        whole_m = self.length_m[part.way]
        return float(way_s[part.way] * (part.length_m / whole_m if whole_m else 0.0))


@dataclass(frozen=True, slots=True)
class ShortestPathTree:
    """For each node, what the fastest way to the place costs, and the way it begins with."""

    roads: Roads
    place: Place
    way_s: Floats
    left_s: Floats
    next_way: NDArray[np.int64]
    last_parts: dict[int, EdgeSegment]  # from an end of the place's street to the place

    def seconds_from(self, start: Place) -> float:
        """What the fastest way from somewhere costs; infinite if there is none."""
        return min(seconds for seconds, _, _ in self.leaving(start))

    def route_from(self, start: Place) -> list[EdgeSegment]:
        """The fastest way from somewhere, street by street. Raises ValueError if there is none."""
        seconds, first, node = min(self.leaving(start), key=lambda one: one[0])
        if seconds == float("inf"):
            raise ValueError("there is no way")
        return [first] if node is None else [first, *self._from_node(node)]

    def sums_from_nodes(self, *of_ways: Floats) -> list[Floats]:
        """What the fastest way from each node adds up to, of each of these amounts of the ways."""
        goes_on = self.next_way >= 0
        after = np.where(goes_on, self.roads.to_node[self.next_way], NO_WAY)
        sums = [np.where(goes_on, amounts[self.next_way], 0.0) for amounts in of_ways]
        for node, part in self.last_parts.items():
            if not goes_on[node]:
                whole_m = self.roads.length_m[part.way]
                share = part.length_m / whole_m if whole_m else 0.0
                for amounts, one in zip(of_ways, sums, strict=True):
                    one[node] = amounts[part.way] * share
        while (goes_on := after >= 0).any():  # each round doubles how far it looks ahead
            sums = [np.where(goes_on, one + one[after], one) for one in sums]
            after = np.where(goes_on, after[after], NO_WAY)
        return sums

    def leaving(self, start: Place) -> Iterator[tuple[float, EdgeSegment, int | None]]:
        """The ways to begin with, as `Roads.leaving` gives them."""
        return self.roads.leaving(
            start, self.place, self.way_s, lambda node: float(self.left_s[node])
        )

    def _from_node(self, node: int) -> Iterator[EdgeSegment]:
        roads = self.roads
        while (way := int(self.next_way[node])) != NO_WAY:
            length_m = float(roads.length_m[way])
            ends = (0.0, length_m) if way < roads.forwards else (length_m, 0.0)
            yield EdgeSegment(way, *ends)
            node = int(roads.to_node[way])
        yield self.last_parts[node]
