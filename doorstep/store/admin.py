"""The owner's work: registering drivers, restaurants, areas and staff, and partitions ahead.

Runs as doorstep_owner on a plain connection; each call is idempotent. Nothing here commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg

from doorstep.store.error_mapping import translated
from sql import query


@dataclass(frozen=True, slots=True)
class NewDriver:
    """A driver to register, with the hash of their token."""

    driver_id: str
    name: str
    token_sha256: bytes | None


@dataclass(frozen=True, slots=True)
class NewRestaurant:
    """A restaurant to register; its place is given longitude first."""

    restaurant_id: int
    name: str
    lon_deg: float
    lat_deg: float


def register_drivers(conn: psycopg.Connection[Any], drivers: Sequence[NewDriver]) -> None:
    """Add drivers, off duty; those that exist keep their state and get the name and token."""
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
    """Add restaurants; one that exists is updated."""
    with translated():
        conn.execute(
            query("register_restaurants"),
            {
                "restaurant_ids": [place.restaurant_id for place in restaurants],
                "names": [place.name for place in restaurants],
                "lon_degs": [place.lon_deg for place in restaurants],
                "lat_degs": [place.lat_deg for place in restaurants],
            },
        )


def register_service_area(
    conn: psycopg.Connection[Any],
    name: str,
    *,
    west: float,
    south: float,
    east: float,
    north: float,
) -> None:
    """Add or move a service area, a box in degrees; swapped coordinates are told by these."""
    with translated():
        conn.execute(
            query("register_service_area"),
            {"name": name, "west": west, "south": south, "east": east, "north": north},
        )


def register_staff_token(
    conn: psycopg.Connection[Any], token_sha256: bytes, name: str = "staff"
) -> None:
    """Make a staff token good; the older ones of this name are revoked."""
    with translated():
        conn.execute(query("register_staff_token"), {"token_sha256": token_sha256, "name": name})


def ensure_partitions(conn: psycopg.Connection[Any], first_day: date, last_day: date) -> None:
    """Make sure that fix_history has a partition for each UTC day of the range."""
    with translated():
        conn.execute(query("ensure_partitions"), {"first_day": first_day, "last_day": last_day})
