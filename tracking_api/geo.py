"""Distances on the ground. Longitude first, degrees in, metres out."""

from __future__ import annotations

import math

EARTH_RADIUS_M = 6_371_008.8  # the mean radius, as in PostGIS's ST_DistanceSphere


def distance_m(a: tuple[float, float], b: tuple[float, float]) -> float:
    """The great-circle distance between two (lon_deg, lat_deg)."""
    lon_a, lat_a, lon_b, lat_b = map(math.radians, (*a, *b))
    half = (
        math.sin((lat_b - lat_a) / 2) ** 2
        + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, half)))
