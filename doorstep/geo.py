"""Distances and directions on the ground. Places are (lon_deg, lat_deg).

The sphere is the one of PostGIS's ST_DistanceSphere, so Python and SQL agree.
"""

from __future__ import annotations

import math

Place = tuple[float, float]

EARTH_RADIUS_M = 6_371_008.7714  # WGS 84's mean radius, (2a + b) / 3
M_PER_DEG = EARTH_RADIUS_M * math.pi / 180  # of latitude: 111,195.08
MIN_COS_LAT = 1e-6  # at a pole a degree of longitude has no length


def distance_m(a: Place, b: Place) -> float:
    """The great-circle distance between two places (haversine)."""
    lon_a, lat_a, lon_b, lat_b = map(math.radians, (*a, *b))
    half = (
        math.sin((lat_b - lat_a) / 2) ** 2
        + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, half)))


def bearing_deg(a: Place, b: Place) -> float:
    """The initial bearing from a to b, clockwise from north."""
    lon_a, lat_a, lon_b, lat_b = map(math.radians, (*a, *b))
    east = math.sin(lon_b - lon_a) * math.cos(lat_b)
    north = math.cos(lat_a) * math.sin(lat_b) - math.sin(lat_a) * math.cos(lat_b) * math.cos(
        lon_b - lon_a
    )
    return math.degrees(math.atan2(east, north)) % 360


def offset(place: Place, east_m: float, north_m: float) -> Place:
    """The place so many metres away, on the plane: within 0.1 % over some kilometres."""
    lon_deg, lat_deg = place
    return wrap_lon_deg(lon_deg + east_m / m_per_lon_deg(lat_deg)), lat_deg + north_m / M_PER_DEG


def wrap_lon_deg(lon_deg: float) -> float:
    """The same longitude from -180 to 180."""
    return lon_deg - 360.0 * round(lon_deg / 360.0)


def lon_difference_deg(lon_deg: float, from_lon_deg: float) -> float:
    """The difference of two longitudes the short way round, across ±180° where that is shorter."""
    return wrap_lon_deg(lon_deg - from_lon_deg)


def m_per_lon_deg(lat_deg: float) -> float:
    """The length of a degree of longitude at a latitude."""
    return M_PER_DEG * max(math.cos(math.radians(lat_deg)), MIN_COS_LAT)
