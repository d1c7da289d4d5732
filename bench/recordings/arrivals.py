"""The rule for an arrival under policy 1, for fixes without speeds.

tests/traces/test_arrivals.py compares it with the reference model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.recordings.traces import Place
from doorstep.geo import distance_m

Fixes = Sequence[Mapping[str, Any]]
"""Fixes with `fix_at` (epoch ms), `lon_deg` and `lat_deg`."""

ENTER_RADIUS_M = 60.0
DWELL_S = (30.0, 120.0)
DWELL_SPREAD_M = 25.0
NEAR_DEG = 0.002  # of longitude: over 60 m at latitudes up to 74 degrees; skips distant fixes early


def proves_arrival(fixes: Fixes, place: Place, from_s: float, to_s: float) -> bool:
    """Say whether two fixes in a span of time (epoch seconds) prove an arrival at a place.

    They are within the radius of the place, 30 to 120 s apart, and near each other.
    """
    near = list(_fixes_near(fixes, place, from_s, to_s))
    least_s, most_s = DWELL_S
    return any(
        least_s <= later_s - earlier_s <= most_s and distance_m(here, there) <= DWELL_SPREAD_M
        for earlier_s, here in near
        for later_s, there in near
    )


def _fixes_near(
    fixes: Fixes, place: Place, from_s: float, to_s: float
) -> Iterator[tuple[float, Place]]:
    for fix in fixes:
        at_s, here = fix["fix_at"] / 1000, Place(fix["lon_deg"], fix["lat_deg"])
        if (
            from_s <= at_s <= to_s
            and math.dist(here, place) < NEAR_DEG
            and distance_m(here, place) <= ENTER_RADIUS_M
        ):
            yield at_s, here
