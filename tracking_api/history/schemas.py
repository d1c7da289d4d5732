"""Histories as the API returns them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class DriverHistory(BaseModel):
    """A page of a driver's fixes, packed. `next_cursor` is null on the last page."""

    driver_id: str
    columns: list[str]
    fixes: list[list[Any]]
    next_cursor: str | None


class FleetStates(BaseModel):
    """Changes of drivers' states, packed; by driver and time."""

    columns: list[str]
    states: list[list[Any]]


class FleetHistory(BaseModel):
    """Past positions of several drivers, packed; `more`: others were left out."""

    step_s: float
    driver_ids: list[str]
    more: bool
    columns: list[str]
    fixes: list[list[Any]]
