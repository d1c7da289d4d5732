"""The ETA without a street graph, from the straight-line distance and the observed speed. Pure.

The distance is stretched by the median detour of Florence's streets; `basis` states it in the
answer. `road_eta` replaces this estimate where there is a street graph. `now` is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from doorstep.geo import Place, distance_m
from tracking_api.track.visibility import (
    STALE_WITHIN_S,
    Position,
    TrackedOrder,
    TrailPoint,
    age_s,
)

DETOUR_FACTOR = 1.5  # street over straight, median of 1,868 random pairs in Florence 0.5-5 km apart
ASSUMED_SPEED_MPS = 4.5  # 16 km/h, a courier's usual pace, until there is something to observe
OBSERVED_WITHIN_S = 300  # older movement says little about the present
SEGMENT_M = 30  # below this GPS noise of 5-10 m makes up most of a movement
LEAST_OBSERVED_M = 120  # four segments
SLOWEST_MPS, FASTEST_MPS = 1.0, 25.0  # slower is waiting, faster is a jump
P10_RATIO, P90_RATIO = 0.65, 1.6  # of true over estimated time; a guess as broad as the method
HANDOVER_DWELLS = 8  # × dwell_min_s (30 s) = 240 s, the mean time a courier needs at a restaurant

_BEFORE_PICK_UP = ("assigned", "at_restaurant")
_AFTER_PICK_UP = ("picked_up", "arriving")


@dataclass(frozen=True, slots=True)
class Eta:
    """An estimated arrival and its basis.

    Of ten arrivals one is before `p10_at` and one after `p90_at`. `as_of` is the fix that the
    estimate starts from. `way` is the way ahead as an encoded GeoJSON line, if it is by road.
    """

    arrives_at: datetime
    p10_at: datetime
    p90_at: datetime
    as_of: datetime
    seconds: int
    distance_m: int
    speed_mps: float
    route: Literal["road", "straight_line"]
    speeds: Literal["learned", "observed", "assumed"]
    basis: str
    way: msgspec.Raw | None = None


def estimate_arrival(order: TrackedOrder) -> Eta | None:
    """Estimate when the driver is with the customer.

    None while no position may be shown, when the last one is too old, and when the driver has
    arrived.
    """
    position = order.position
    if position is None or age_s(position.fix_at, order.now) > STALE_WITHIN_S:
        return None
    if order.state in _BEFORE_PICK_UP:
        via = order.restaurant if order.state == "assigned" else position.lon_lat
        straight_m = distance_m(position.lon_lat, via) + distance_m(via, order.destination)
        handover_s = HANDOVER_DWELLS * order.dwell_min_s
    elif order.state in _AFTER_PICK_UP:
        straight_m = distance_m(position.lon_lat, order.destination)
        handover_s = 0.0
    else:
        return None
    observed_mps = observed_speed_mps([*order.trail, position], order.now)
    speed_mps = observed_mps or ASSUMED_SPEED_MPS
    way_m = straight_m * DETOUR_FACTOR
    total_s = way_m / speed_mps + handover_s

    def at(seconds: float) -> datetime:
        return max(position.fix_at + timedelta(seconds=seconds), order.now)

    arrives_at = at(total_s)
    return Eta(
        arrives_at=arrives_at,
        p10_at=at(total_s * P10_RATIO),
        p90_at=at(total_s * P90_RATIO),
        as_of=position.fix_at,
        seconds=round((arrives_at - order.now).total_seconds()),
        distance_m=round(way_m),
        speed_mps=round(speed_mps, 2),
        route="straight_line",
        speeds="observed" if observed_mps is not None else "assumed",
        basis=_basis(speed_mps, observed_mps is not None, handover_s),
    )


def straight_ride(start: Place, goal: Place) -> tuple[float, float]:
    """Return the seconds and metres of a ride, guessed from the straight line."""
    way_m = distance_m(start, goal) * DETOUR_FACTOR
    return way_m / ASSUMED_SPEED_MPS, way_m


def observed_speed_mps(trail: Sequence[TrailPoint | Position], now: datetime) -> float | None:
    """Return the mean speed while moving, over the last minutes. None for too little movement.

    The trail is thinned to steps of 30 m, so that GPS noise at rest does not count.
    """
    recent = [position for position in trail if age_s(position.fix_at, now) <= OBSERVED_WITHIN_S]
    moved_m = moved_s = 0.0
    if not recent:
        return None
    anchor = recent[0]
    for position in recent[1:]:
        step_m = distance_m(anchor.lon_lat, position.lon_lat)
        step_s = (position.fix_at - anchor.fix_at).total_seconds()
        if step_m < SEGMENT_M or step_s <= 0:
            continue
        if SLOWEST_MPS <= step_m / step_s <= FASTEST_MPS:
            moved_m += step_m
            moved_s += step_s
        anchor = position
    return moved_m / moved_s if moved_m >= LEAST_OBSERVED_M else None


def _basis(speed_mps: float, observed: bool, handover_s: float) -> str:
    seen = "observed" if observed else "assumed"
    wait = f", plus {handover_s:.0f} s at the restaurant" if handover_s else ""
    return f"straight line × {DETOUR_FACTOR:g} at {speed_mps:.1f} m/s ({seen}){wait}; no routing"
