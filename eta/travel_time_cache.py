"""The way left from anywhere to a door, looked up in microseconds.

One run of Dijkstra from the door (about 5 ms) answers for every place in the city until the hour
or the model changes. It holds Python's lock, so a thread would win nothing; instead only so many
are made in a second, and who comes too early is told None.
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
from eta.streets import Place, Point

MOST_OFF_STREET_M = 300.0  # further from every street is another city, or none
MOST_DOORS = 2_000  # × 17,463 nodes × 4 bytes: 140 MB for Florence, if so many are watched
MOST_MADE_PER_S = 20  # × 5 ms: a tenth of one processor
TENTH_S = 0.1
OFF_STREET_MPS = 5.0  # a street that is so much further from the fix must be a second faster
FURTHEST = np.iinfo(np.uint16).max  # 6,553 s or 65 km: nobody delivers so far
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left of a way, in the city's own time, without the steps to the door."""

    seconds: float
    metres: float


@dataclass(frozen=True, slots=True)
class _Door:
    """What is left from each node, packed: tenths of seconds, and metres."""

    place: Place
    tenths: NDArray[np.uint16]
    metres: NDArray[np.uint16]


class TravelTimeCache:
    """The doors that somebody asked for lately."""

    def __init__(
        self,
        city: City,
        model: EtaModel,
        clock: Callable[[], float] = time.monotonic,
        most_made_per_s: float = MOST_MADE_PER_S,
    ) -> None:
        self.city = city
        self.model = model
        self._clock = clock
        self._most_made_per_s = most_made_per_s
        self._second, self._made = 0, 0
        self._doors: OrderedDict[tuple[Point, int], _Door] = OrderedDict()
        self._way_s: dict[int, Floats] = {}

    def use(self, model: EtaModel) -> None:
        """Go on with another model."""
        if model.model_id != self.model.model_id:
            self.model = model
            self._doors.clear()
            self._way_s.clear()

    def left(self, start: Point, door: Point, hour: int) -> Remaining | None:
        """The way from a fix to a door. None out of the city, and while there is no time.

        Of the streets that the fix may be on, it is the one from where the door is nearest: a
        courier on the way there has no reason to be on the wrong side of a one-way street.
        """
        places = self.city.places(start, MOST_OFF_STREET_M)
        found = self._door(door, hour) if places else None
        if found is None:
            return None
        way_s = self._seconds_of_ways(hour)
        seconds, _, part, node = min(
            (
                (seconds, n, part, node)
                for n, place in enumerate(places)
                for seconds, part, node in self.city.roads.leaving(
                    place, found.place, way_s, lambda node: float(found.tenths[node]) * TENTH_S
                )
            ),
            key=lambda way: way[0] + places[way[1]].off_street_m / OFF_STREET_MPS,
        )
        if node is None:
            return Remaining(seconds, part.length_m)
        if found.tenths[node] == FURTHEST:
            return None
        return Remaining(seconds, part.length_m + float(found.metres[node]))

    def _door(self, door: Point, hour: int) -> _Door | None:
        key = (door, hour)
        found = self._doors.get(key)
        if found is not None:
            self._doors.move_to_end(key)
            return found
        x, y = self.city.streets.to_xy(*door)
        place = self.city.streets.nearest_within(x, y, MOST_OFF_STREET_M)
        if place is None or not self._may_make():
            return None
        way_s = self._seconds_of_ways(hour)
        field = self.city.roads.towards(place, self.city.chosen_by(self.model.ways, way_s))
        tenths, metres = field.sums_from_nodes(way_s / TENTH_S, self.city.roads.length_m)
        found = self._doors[key] = _Door(place, _packed(tenths), _packed(metres))
        if len(self._doors) > MOST_DOORS:
            self._doors.popitem(last=False)
        return found

    def _may_make(self) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._made = second, 0
        self._made += 1
        return self._made <= self._most_made_per_s

    def _seconds_of_ways(self, hour: int) -> Floats:
        if hour not in self._way_s:
            self._way_s[hour] = self.city.way_s(self.model, hour)
        return self._way_s[hour]


def _packed(values: Floats) -> NDArray[np.uint16]:
    return np.minimum(np.round(values), FURTHEST).astype(np.uint16)
