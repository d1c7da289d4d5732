"""Registers drivers, restaurants, areas and staff, and creates partitions.

Runs as doorstep_owner on a plain connection. Each call is idempotent; none commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import psycopg

from doorstep.store.error_mapping import translated
from sql import query


@dataclass(frozen=True, slots=True)
class NewDriver:
    """A driver to register, with the SHA-256 of their token."""

    driver_id: str
    name: str
    token_sha256: bytes | None


@dataclass(frozen=True, slots=True)
class NewRestaurant:
    """A restaurant to register."""

    restaurant_id: int
    name: str
    lon_deg: float
    lat_deg: float


def register_drivers(conn: psycopg.Connection[Any], drivers: Sequence[NewDriver]) -> None:
    """Add drivers, off duty; existing ones keep their state and get the name and token."""
    with translated():
        conn.execute(
            query("register_drivers"),
            {
                "driver_ids": [driver.driver_id for driver in drivers],
                "names": [driver.name for driver in drivers],
                "token_sha256s": [driver.token_sha256 for driver in drivers],
            },
        )


def register_restaurants(
    conn: psycopg.Connection[Any], restaurants: Sequence[NewRestaurant]
) -> None:
    """Add restaurants; existing ones are updated."""
    with translated():
        conn.execute(query("register_restaurants"), _restaurant_columns(restaurants))


def _restaurant_columns(restaurants: Sequence[NewRestaurant]) -> dict[str, object]:
    return {
        "restaurant_ids": [place.restaurant_id for place in restaurants],
        "names": [place.name for place in restaurants],
        "lon_degs": [place.lon_deg for place in restaurants],
        "lat_degs": [place.lat_deg for place in restaurants],
    }


@dataclass(frozen=True, slots=True)
class NewCity:
    """A city to register. `made_at` is the instant of its files."""

    name: str
    west: float
    south: float
    east: float
    north: float
    time_zone: str
    made_at: datetime
    restaurants: Sequence[NewRestaurant]


def register_city(conn: psycopg.Connection[Any], city: NewCity) -> bool:
    """Add or replace a city. False, without a change, if these files or newer are registered."""
    parameters = _restaurant_columns(city.restaurants) | {
        "name": city.name,
        "west": city.west,
        "south": city.south,
        "east": city.east,
        "north": city.north,
        "time_zone": city.time_zone,
        "made_at": city.made_at,
    }
    with translated():
        row = conn.execute(query("register_city"), parameters).fetchone()
    return row is not None and bool(row[0])


def remove_city(conn: psycopg.Connection[Any], name: str) -> int:
    """Remove a city. Returns the number of open orders in it: with any, nothing is removed."""
    with translated():
        row = conn.execute(query("remove_city"), {"name": name}).fetchone()
    return int(row[0]) if row is not None else 0


def register_service_area(
    conn: psycopg.Connection[Any],
    name: str,
    *,
    west: float,
    south: float,
    east: float,
    north: float,
) -> None:
    """Add or update a service area, a box in degrees, used to detect swapped coordinates."""
    with translated():
        conn.execute(
            query("register_service_area"),
            {"name": name, "west": west, "south": south, "east": east, "north": north},
        )


def register_staff_token(
    conn: psycopg.Connection[Any], token_sha256: bytes, name: str = "stack"
) -> None:
    """Register an admin's token and revoke the older ones of this name.

    A token that was revoked stays revoked.
    """
    with translated():
        conn.execute(query("register_staff_token"), {"token_sha256": token_sha256, "name": name})


def ensure_partitions(conn: psycopg.Connection[Any], first_day: date, last_day: date) -> None:
    """Create the missing partitions of fix_history for each UTC day of the range."""
    with translated():
        conn.execute(query("ensure_partitions"), {"first_day": first_day, "last_day": last_day})
