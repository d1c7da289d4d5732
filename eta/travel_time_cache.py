"""The remaining travel time from anywhere to a door, looked up in microseconds.

One run of Dijkstra from the door covers the places around it until the speeds change: as far as a
courier's is (about 1 ms), or the whole city (3 ms) once one is farther. It holds the GIL, so a
thread would gain nothing: the number of runs per second is limited instead.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eta.features import City
from eta.model import EtaModel
from eta.streets import DoorRoutes, EdgeCosts, EdgeSegment, Point, StreetPoint
from eta.way import way_points

MAX_OFF_STREET_M = 300.0  # farther from every street is outside the city
MAX_DOORS = 2_000  # × 17,463 nodes × 4 bytes: 140 MB for Florence
MAX_RUNS_PER_S = 20  # × 1 to 5 ms: at most a tenth of one processor
MAX_HELD = 20_000  # of about 200 bytes
MAX_WAYS = 4_000  # of usually 60 points: 8 kB each
MAX_FIRST_POINTS, MAX_FURTHER_POINTS = 10, 90  # of a way: on its first street, and beyond
# A table reaches as far as 95 % of the routes to its door are long, by their straight line.
DETOUR, DETOUR_M = 1.4, 400.0
OFF_STREET_MPS = 5.0  # a candidate that is 5 m farther from the fix must save a second
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Remaining:
    """The rest of a route in model time, without the last steps to the door."""

    seconds: float
    metres: float
    first: EdgeSegment | None = None
    node: int | None = None  # at the end of `first`; None where that leads to the door


class _HourSpeeds(NamedTuple):
    """The seconds of each edge, and what couriers route by."""

    edge_s: Floats
    costs: EdgeCosts


class TravelTimeCache:
    """Keeps the tables of the doors requested most recently."""

    def __init__(
        self,
        city: City,
        model: EtaModel,
        clock: Callable[[], float] = time.monotonic,
        max_runs_per_s: float = MAX_RUNS_PER_S,
    ) -> None:
        self.city = city
        self.model = model
        self._clock = clock
        self._max_runs_per_s = max_runs_per_s
        self._second, self._runs = 0, 0
        self._tables: OrderedDict[tuple[Point, int], DoorRoutes] = OrderedDict()
        self._speeds: dict[int, _HourSpeeds] = {}
        self._held: OrderedDict[tuple[Point, Point, int], Remaining | None] = OrderedDict()
        self._ways: OrderedDict[tuple[Point, int, int], list[Point]] = OrderedDict()
        self._hours = _first_equal_hours(model)

    def set_model(self, model: EtaModel) -> None:
        """Use another model, and drop the tables of the previous one."""
        if model.model_id != self.model.model_id:
            self.model = model
            self._tables.clear()
            self._speeds.clear()
            self._held.clear()
            self._ways.clear()
            self._hours = _first_equal_hours(model)

    def remaining(self, start: Point, door: Point, hour: int) -> Remaining | None:
        """The route from a fix to a door. None outside the city, and over the limit of runs.

        Of the streets that the fix may be on, takes the one with the shortest route: a courier
        on the way to the door has no reason to be on the wrong side of a one-way street.
        """
        hour = self._hours[hour]
        key = (start, door, hour)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        if (door, hour) not in self._tables and not self._has_runs_left():
            return None
        candidates = self.city.candidates(start, MAX_OFF_STREET_M)
        table = self._table(door, hour, candidates) if candidates else None
        if table is None:
            return None
        found = self._held[key] = self._from_candidates(candidates, table, hour)
        if len(self._held) > MAX_HELD:
            self._held.popitem(last=False)
        return found

    def way(self, start: Point, door: Point, hour: int) -> list[Point] | None:
        """The way of a route that `remaining` has found, longitude first; None if it is forgotten.

        Its points from the next crossing on are kept, so a ride computes them once a street.
        """
        hour = self._hours[hour]
        found, table = self._held.get((start, door, hour)), self._tables.get((door, hour))
        if found is None or found.first is None or table is None:
            return None
        streets, roads = self.city.streets, self.city.roads
        head = way_points(streets, roads, [found.first], MAX_FIRST_POINTS)
        if found.node is None:
            return head
        key = (door, hour, found.node)
        tail = self._ways.get(key)
        if tail is None:
            path = table.route_from(found.node)
            tail = self._ways[key] = way_points(streets, roads, path, MAX_FURTHER_POINTS)
            if len(self._ways) > MAX_WAYS:
                self._ways.popitem(last=False)
        if not tail:
            return head
        return [*(point for point in head[:-1] if point != tail[0]), *tail]

    def _from_candidates(
        self, candidates: Sequence[StreetPoint], routes: DoorRoutes, hour: int
    ) -> Remaining | None:
        edge_s = self._speeds_at(hour).edge_s
        seconds, _, segment, node = min(
            (
                (seconds, n, segment, node)
                for n, point in enumerate(candidates)
                for seconds, segment, node in self.city.roads.departures(
                    point, routes.door, edge_s, routes.seconds_from
                )
            ),
            key=lambda first: first[0] + candidates[first[1]].off_street_m / OFF_STREET_MPS,
        )
        if node is None:
            return Remaining(seconds, segment.length_m, segment)
        rest = routes.rest_from(node)
        if rest is None:
            return None
        return Remaining(seconds, segment.length_m + rest.metres, segment, node)

    def _table(
        self, door: Point, hour: int, candidates: Sequence[StreetPoint]
    ) -> DoorRoutes | None:
        """The routes to a door, those from these places included; None over the limit of runs."""
        key = (door, hour)
        streets, roads = self.city.streets, self.city.roads
        nodes = roads.departure_nodes(candidates)
        cached = self._tables.get(key)
        if cached is not None and cached.covers(nodes):
            self._tables.move_to_end(key)
            return cached
        point = streets.nearest_within(*streets.to_xy(*door), MAX_OFF_STREET_M)
        if point is None or not self._may_run():
            return None
        speeds = self._speeds_at(hour)
        away_m = math.dist(point.point, candidates[0].point)
        reach_m = DETOUR_M + DETOUR * away_m if cached is None else math.inf
        run = partial(DoorRoutes, roads, point, speeds.costs, speeds.edge_s)
        routes = run(reach_m * speeds.costs.per_m)
        if not routes.covers(nodes):
            routes = run(math.inf)
        self._tables[key] = routes
        self._tables.move_to_end(key)
        if len(self._tables) > MAX_DOORS:
            self._tables.popitem(last=False)
        return routes

    def _may_run(self) -> bool:
        if not self._has_runs_left():
            return False
        self._runs += 1
        return True

    def _has_runs_left(self) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._runs = second, 0
        return self._runs < self._max_runs_per_s

    def _speeds_at(self, hour: int) -> _HourSpeeds:
        found = self._speeds.get(hour)
        if found is None:
            edge_s = self.city.edge_seconds(self.model, hour)
            costs = self.city.routing_costs(self.model.route_choice, edge_s)
            found = self._speeds[hour] = _HourSpeeds(edge_s, self.city.roads.costs(costs))
        return found


def _first_equal_hours(model: EtaModel) -> list[int]:
    """Per hour, the first one with the same speeds: what is held for it holds for both."""
    speeds = [tuple(by_hour[hour] for by_hour in model.street_mps) for hour in range(24)]
    return [speeds.index(one) for one in speeds]
