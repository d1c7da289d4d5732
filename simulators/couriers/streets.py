"""The streets for couriers: the fastest way by the speed limits, and traffic lights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np

from data.cities import CityFolder
from eta import streets as graph
from eta.streets import BannedTurn, EdgeSegment, Point, RoadGraph, Street, StreetPoint

__all__ = ["Point", "StreetPoint", "Streets", "Stretch", "load_streets"]

UTC = ZoneInfo("UTC")
WITH_LIGHTS = frozenset({"primary", "secondary", "tertiary"})
CROSSINGS_PER_LIGHT = 3  # of the crossings of those streets, one in three has lights


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a way, along one street. `lights`: whether there are traffic lights at its end."""

    points: tuple[Point, ...]
    limit_mps: float
    highway: str
    lights: bool


class Streets(graph.Streets):
    """A city's street graph, with the fastest ways of couriers."""

    def __init__(
        self,
        middle: Point,
        streets: Sequence[Street],
        nodes: Sequence[Point],
        zone: ZoneInfo = UTC,
        turns: Sequence[BannedTurn] = (),
    ) -> None:
        """See `eta.streets.Streets`."""
        super().__init__(middle, streets, nodes, zone, turns)
        self._roads = RoadGraph(self)
        limits = np.array([street.limit_mps for street in streets])
        self._edge_s = self._roads.length_m / limits[self._roads.street_of]
        self._lights = _lights(streets)

    def way(self, start: StreetPoint, end: StreetPoint) -> list[Stretch]:
        """Return the fastest way from one place to another. Respects one-way streets."""
        route = self._roads.shortest_path_tree(end, self._edge_s).route_from(start)
        return [self._stretch(part, is_last=part is route[-1]) for part in route]

    def _node_after(self, edge: int) -> int:
        return int(self._roads.node_of[self._roads.to_node[edge]])

    def _stretch(self, part: EdgeSegment, *, is_last: bool) -> Stretch:
        street = self.streets[self._roads.street_of[part.edge]]
        lights = not is_last and self._node_after(part.edge) in self._lights
        return Stretch(_points(street, part), street.limit_mps, street.highway, lights)


@cache
def load_streets(city: CityFolder) -> Streets:
    """Load a city's streets that couriers may use."""
    known = graph.load_streets(city)
    return Streets(known.middle, known.streets, known.nodes, known.zone, known.turns)


def _lights(streets: Sequence[Street]) -> frozenset[int]:
    """Choose nodes with traffic lights: crossings of three or more streets, one of them major."""
    meeting: dict[int, int] = {}
    major: set[int] = set()
    for street in streets:
        for node in (street.u, street.v):
            meeting[node] = meeting.get(node, 0) + 1
            if street.highway in WITH_LIGHTS:
                major.add(node)
    crossings = (node for node in major if meeting[node] >= 3)
    return frozenset(node for node in crossings if node % CROSSINGS_PER_LIGHT == 0)


def _points(street: Street, part: EdgeSegment) -> tuple[Point, ...]:
    low, high = sorted((part.from_m, part.to_m))
    inner = [p for p, a in zip(street.points, street.along_m, strict=True) if low < a < high]
    points = [_point_at(street, low), *inner, _point_at(street, high)]
    if part.to_m < part.from_m:
        points.reverse()
    return tuple(points)


def _point_at(street: Street, along_m: float) -> Point:
    along = np.asarray(street.along_m)
    xs, ys = zip(*street.points, strict=True)
    return float(np.interp(along_m, along, xs)), float(np.interp(along_m, along, ys))
