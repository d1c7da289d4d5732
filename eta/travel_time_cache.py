"""The remaining travel time from anywhere to a door, looked up in microseconds.

One run of Dijkstra from the door (about 5 ms) covers every place in the city until the hour or
the model changes. It holds the GIL, so a thread would gain nothing: the number of runs per second
is limited instead.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eta.features import City
from eta.model import EtaModel
from eta.streets import Point, StreetPoint

MAX_OFF_STREET_M = 300.0  # farther from every street is outside the city
MAX_DOORS = 2_000  # × 17,463 nodes × 4 bytes: 140 MB for Florence
MAX_RUNS_PER_S = 20  # × 5 ms: a tenth of one processor
TENTH_S = 0.1
OFF_STREET_MPS = 5.0  # a candidate that is 5 m farther from the fix must save a second
UNREACHABLE = np.iinfo(np.uint16).max  # 6,553 s or 65 km
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Remaining:
    """The rest of a route in model time, without the last steps to the door."""

    seconds: float
    metres: float


@dataclass(frozen=True, slots=True)
class _DoorTable:
    """The remaining time and distance from each node to one door, packed."""

    point: StreetPoint
    tenths: NDArray[np.uint16]
    metres: NDArray[np.uint16]


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
        self._tables: OrderedDict[tuple[Point, int], _DoorTable] = OrderedDict()
        self._edge_s: dict[int, Floats] = {}

    def set_model(self, model: EtaModel) -> None:
        """Use another model, and drop the tables of the previous one."""
        if model.model_id != self.model.model_id:
            self.model = model
            self._tables.clear()
            self._edge_s.clear()

    def remaining(self, start: Point, door: Point, hour: int) -> Remaining | None:
        """The route from a fix to a door. None outside the city, and over the limit of runs.

        Of the streets that the fix may be on, takes the one with the shortest route: a courier
        on the way to the door has no reason to be on the wrong side of a one-way street.
        """
        candidates = self.city.candidates(start, MAX_OFF_STREET_M)
        table = self._table(door, hour) if candidates else None
        if table is None:
            return None
        edge_s = self._edge_seconds(hour)
        seconds, _, segment, node = min(
            (
                (seconds, n, segment, node)
                for n, point in enumerate(candidates)
                for seconds, segment, node in self.city.roads.departures(
                    point, table.point, edge_s, lambda node: float(table.tenths[node]) * TENTH_S
                )
            ),
            key=lambda first: first[0] + candidates[first[1]].off_street_m / OFF_STREET_MPS,
        )
        if node is None:
            return Remaining(seconds, segment.length_m)
        if table.tenths[node] == UNREACHABLE:
            return None
        return Remaining(seconds, segment.length_m + float(table.metres[node]))

    def _table(self, door: Point, hour: int) -> _DoorTable | None:
        key = (door, hour)
        cached = self._tables.get(key)
        if cached is not None:
            self._tables.move_to_end(key)
            return cached
        x, y = self.city.streets.to_xy(*door)
        point = self.city.streets.nearest_within(x, y, MAX_OFF_STREET_M)
        if point is None or not self._may_run():
            return None
        edge_s = self._edge_seconds(hour)
        costs = self.city.routing_costs(self.model.route_choice, edge_s)
        tree = self.city.roads.shortest_path_tree(point, costs)
        tenths, metres = tree.sums_from_nodes(edge_s / TENTH_S, self.city.roads.length_m)
        table = self._tables[key] = _DoorTable(point, _packed(tenths), _packed(metres))
        if len(self._tables) > MAX_DOORS:
            self._tables.popitem(last=False)
        return table

    def _may_run(self) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._runs = second, 0
        self._runs += 1
        return self._runs <= self._max_runs_per_s

    def _edge_seconds(self, hour: int) -> Floats:
        if hour not in self._edge_s:
            self._edge_s[hour] = self.city.edge_seconds(self.model, hour)
        return self._edge_s[hour]


def _packed(values: Floats) -> NDArray[np.uint16]:
    return np.minimum(np.round(values), UNREACHABLE).astype(np.uint16)
