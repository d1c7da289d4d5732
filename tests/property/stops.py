"""Where a courier's new stop goes, in plain Python: the least detour, in straight lines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from tests.property.records import Place, distance_m


class Leg(NamedTuple):
    """An open order of a driver."""

    restaurant: Place
    customer: Place
    is_picked_up: bool


def way_m(start: Place | None, legs: Sequence[Leg]) -> float:
    """The way along all stops; before the first order of a restaurant, all of it are collected."""
    places = [] if start is None else [start]
    seen: set[Place] = set()
    for leg in legs:
        if not leg.is_picked_up and leg.restaurant not in seen:
            seen.add(leg.restaurant)
            places.append(leg.restaurant)
        places.append(leg.customer)
    return sum(distance_m(a, b) for a, b in pairwise(places))


def first_possible(legs: Sequence[Leg]) -> int:
    """The first stop_no that moves no stop that is picked up behind one that is not."""
    return 1 + max((n for n, leg in enumerate(legs, 1) if leg.is_picked_up), default=0)


def best_stop(start: Place | None, legs: Sequence[Leg], new: Leg) -> tuple[int, int]:
    """The stop_no with the least detour, the last of equal ones, and the detour to the metre."""
    before_m = way_m(start, legs)
    found = [
        (round(way_m(start, [*legs[: n - 1], new, *legs[n - 1 :]]) - before_m), -n)
        for n in range(first_possible(legs), len(legs) + 2)
    ]
    detour_m, negative = min(found)
    return -negative, detour_m


def is_behind(before: Sequence[object], after: Sequence[object], picked_up: set[object]) -> bool:
    """Whether a stop that is picked up has come behind one that is not."""
    return any(
        first in picked_up
        and second not in picked_up
        and before.index(first) < before.index(second)
        and after.index(first) > after.index(second)
        for first in before
        for second in before
    )
