"""The routes to one door, edge by edge, and how long they are: what estimates look up.

A run of Dijkstra gives the next node from each node. Seconds and metres are summed along a route
when it is first requested, and kept for each of its nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, cast

from eta.streets.graph import StreetPoint
from eta.streets.roads import EdgeCosts, EdgeSegment, Floats, RoadGraph


class Rest(NamedTuple):
    """The rest of a route from a node."""

    seconds: float
    metres: float


class DoorRoutes:
    """The routes from everywhere within a reach to one door, in 4 bytes a node.

    `is_whole` says that a place without one has no route to the door.
    """

    def __init__(
        self, roads: RoadGraph, door: StreetPoint, costs: EdgeCosts, edge_s: Floats, limit_s: float
    ) -> None:
        """Compute the routes that cost at most `limit_s`; `edge_s` are the seconds of the edges."""
        self.door = door
        self.is_whole = math.isinf(limit_s)
        self._roads = roads
        self._costs = costs
        self._edge_s = cast("memoryview[float]", edge_s.data)
        self._length_m = cast("memoryview[float]", roads.length_m.data)
        _, next_nodes, self._last = roads.next_nodes(door, costs, limit_s)
        self._next_nodes = next_nodes.data
        self._rests: dict[int, Rest] = {}

    def covers(self, nodes: Iterable[int]) -> bool:
        """Whether the routes from these nodes are known."""
        return self.is_whole or all(self._next_nodes[node] >= 0 for node in nodes)

    def rest_from(self, node: int) -> Rest | None:
        """The rest of the route from a node; None without one."""
        if self._next_nodes[node] < 0:
            return None
        walked: list[tuple[int, int]] = []
        while (rest := self._rests.get(node)) is None:
            after = self._next_nodes[node]
            if after == self._roads.goal_node:
                segment = self._last[node]
                seconds = self._roads.cost_s(segment, self._edge_s)
                rest = self._rests[node] = Rest(seconds, segment.length_m)
                break
            walked.append((node, self._roads.edge_between(node, after, self._costs)))
            node = after
        seconds, metres = rest
        for node, edge in reversed(walked):
            seconds += self._edge_s[edge]
            metres += self._length_m[edge]
            rest = self._rests[node] = Rest(seconds, metres)
        return rest

    def seconds_from(self, node: int) -> float:
        """The seconds of the rest of the route from a node; infinite without one."""
        rest = self.rest_from(node)
        return rest.seconds if rest is not None else math.inf

    def route_from(self, node: int) -> list[EdgeSegment]:
        """The route from a node, edge by edge; empty without one."""
        route: list[EdgeSegment] = []
        while (after := self._next_nodes[node]) >= 0:
            if after == self._roads.goal_node:
                return [*route, self._last[node]]
            edge = self._roads.edge_between(node, after, self._costs)
            route.append(self._roads.whole_segment(edge))
            node = after
        return route
