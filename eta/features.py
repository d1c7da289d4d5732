"""What of a street graph a ride's time depends on: streets' classes, and crossings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eta.model import STREET_CLASSES, EtaModel, Ways
from eta.streets import EdgeSegment, Place, Point, Roads, Streets

_COUNTS_AS = {"living_street": "residential"}
_LARGE = frozenset(STREET_CLASSES[: STREET_CLASSES.index("tertiary") + 1])
FIX_BLUR_M = 12.0  # a fix is off by 5 to 15 m, and the next street may be as near
OTHER = STREET_CLASSES.index("unclassified")


def class_of(highway: str) -> int:
    """The number of a street's class; slip roads count as the street that they join."""
    name = _COUNTS_AS.get(highway, highway).removesuffix("_link")
    return STREET_CLASSES.index(name) if name in STREET_CLASSES else OTHER


class City:
    """A city's roads with what decides how fast they are."""

    def __init__(self, streets: Streets) -> None:
        self.streets = streets
        self.roads = Roads(streets)
        classes = np.array([class_of(street.highway) for street in streets.streets])
        self.way_class = classes[self.roads.street_of]
        self.crossing_ahead = _is_crossing(streets, classes)[self.roads.to_node]
        limits_mps = np.array([street.limit_mps for street in streets.streets])
        self._by_limits = self.roads.length_m / limits_mps[self.roads.street_of]

    def chosen_by(self, ways: Ways, way_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """What couriers choose their way by, who know that ways take `way_s`."""
        return way_s if ways is Ways.SPEEDS else self._by_limits

    def places(self, lon_lat: Point, most_m: float) -> list[Place]:
        """The street at a fix, and others that it may as well be on. Empty out of the city."""
        return self.streets.places_within(*self.streets.to_xy(*lon_lat), most_m, FIX_BLUR_M)

    def way_s(self, model: EtaModel, hour: int) -> NDArray[np.float64]:
        """What each way takes at an hour of the day, the crossing at its end included."""
        mps = np.array([by_hour[hour] for by_hour in model.street_mps])
        crossings_s: NDArray[np.float64] = self.crossing_ahead * model.crossing_s
        seconds: NDArray[np.float64] = self.roads.length_m / mps[self.way_class] + crossings_s
        return seconds

    def amounts(self, route: list[EdgeSegment]) -> NDArray[np.float64]:
        """Metres per class of street, then how many crossings a route has."""
        amounts = np.zeros(len(STREET_CLASSES) + 1)
        for part in route:
            amounts[self.way_class[part.way]] += part.length_m
            whole_m = self.roads.length_m[part.way]
            if self.crossing_ahead[part.way] and whole_m:
                amounts[-1] += part.length_m / whole_m
        return amounts


def _is_crossing(streets: Streets, classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Nodes where three or more streets meet, of which one is tertiary or larger."""
    meeting = np.zeros(len(streets.nodes), dtype=int)
    large = np.zeros(len(streets.nodes), dtype=bool)
    for street, number in zip(streets.streets, classes, strict=True):
        for node in (street.u, street.v):
            meeting[node] += 1
            large[node] |= STREET_CLASSES[number] in _LARGE
    return (meeting >= 3) & large
