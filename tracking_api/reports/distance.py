"""The kilometres of a driver from sampled places. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from doorstep.geo import distance_m

STEP_S = 20.0  # between two places: at 5 m/s a bend shorter than 100 m is cut
STILL_M = 30.0  # below it GPS noise of 5-10 m makes up most of a movement
FASTEST_MPS = 70.0  # beyond it is a jump

Place = tuple[datetime, float, float]
"""fix_at, lon_deg, lat_deg."""


def travelled_m(places: Iterable[Place]) -> float:
    """Return the length of the way through places in the order of time.

    A movement counts once it is 30 m from the last place that counted. A jump does not count.
    """
    total_m = 0.0
    anchor: Place | None = None
    for place in places:
        if anchor is None:
            anchor = place
            continue
        step_m = distance_m(anchor[1:], place[1:])
        if step_m < STILL_M:
            continue
        step_s = (place[0] - anchor[0]).total_seconds()
        if step_m <= FASTEST_MPS * step_s:
            total_m += step_m
        anchor = place
    return total_m
