"""The properties of a street graph that a ride's duration depends on: street classes, crossings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eta.model import STREET_CLASSES, EtaModel, RouteChoice
from eta.streets import EdgeSegment, Point, RoadGraph, StreetPoint, Streets

_ALIASES = {"living_street": "residential"}
_LARGE = frozenset(STREET_CLASSES[: STREET_CLASSES.index("tertiary") + 1])
FIX_BLUR_M = 12.0  # a fix is off by 5 to 15 m, and the next street may be as near
UNCLASSIFIED = STREET_CLASSES.index("unclassified")


def class_index(highway: str) -> int:
    """The index of a street's class; a slip road has the class of the road that it joins."""
    name = _ALIASES.get(highway, highway).removesuffix("_link")
    return STREET_CLASSES.index(name) if name in STREET_CLASSES else UNCLASSIFIED


class City:
    """A city's road graph, with the class of each edge and the crossing at its end."""

    def __init__(self, streets: Streets) -> None:
        self.streets = streets
        self.roads = RoadGraph(streets)
        classes = np.array([class_index(street.highway) for street in streets.streets])
        self.edge_class = classes[self.roads.street_of]
        crossings = _is_crossing(streets, classes)
        self.ends_at_crossing = crossings[self.roads.node_of[self.roads.to_node]]
        limits_mps = np.array([street.limit_mps for street in streets.streets])
        self._limit_s = self.roads.length_m / limits_mps[self.roads.street_of]

    def routing_costs(
        self, choice: RouteChoice, edge_s: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The edge costs that couriers route by. `edge_s` are the learned seconds per edge."""
        return edge_s if choice is RouteChoice.SPEEDS else self._limit_s

    def candidates(self, lon_lat: Point, max_m: float) -> list[StreetPoint]:
        """The streets that a fix may be on, nearest first. Empty outside the city."""
        return self.streets.candidates_within(*self.streets.to_xy(*lon_lat), max_m, FIX_BLUR_M)

    def edge_seconds(self, model: EtaModel, hour: int) -> NDArray[np.float64]:
        """The seconds per edge at an hour of the day, the crossing at its end included."""
        mps = np.array([by_hour[hour] for by_hour in model.street_mps])
        crossings_s: NDArray[np.float64] = self.ends_at_crossing * model.crossing_s
        seconds: NDArray[np.float64] = self.roads.length_m / mps[self.edge_class] + crossings_s
        return seconds

    def route_features(self, route: list[EdgeSegment]) -> NDArray[np.float64]:
        """Metres per street class, then the number of crossings of a route."""
        features = np.zeros(len(STREET_CLASSES) + 1)
        for segment in route:
            features[self.edge_class[segment.edge]] += segment.length_m
            edge_m = self.roads.length_m[segment.edge]
            if self.ends_at_crossing[segment.edge] and edge_m:
                features[-1] += segment.length_m / edge_m
        return features


def _is_crossing(streets: Streets, classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Nodes where three or more streets meet, of which one is tertiary or larger."""
    degree = np.zeros(len(streets.nodes), dtype=int)
    has_large = np.zeros(len(streets.nodes), dtype=bool)
    for street, number in zip(streets.streets, classes, strict=True):
        for node in (street.u, street.v):
            degree[node] += 1
            has_large[node] |= STREET_CLASSES[number] in _LARGE
    return (degree >= 3) & has_large
