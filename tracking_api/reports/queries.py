"""A day's report in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple, Protocol

from doorstep.errors import UnknownServiceArea
from doorstep.store.deadline import fetch_all, fetch_one
from doorstep.store.pool import Pool
from sql import query
from tracking_api.reports.distance import STEP_S, Place

SQL_FILE = "queries/reports.sql"
HISTORY_FILE = "queries/history.sql"
MAX_DRIVERS = 2000  # of one report


class Day(NamedTuple):
    """A local day of a city."""

    time_zone: str
    from_at: datetime
    to_at: datetime
    read_at: datetime


class RestaurantFigures(NamedTuple):
    """The orders of a day: of one restaurant, or (restaurant_id None) of the city."""

    restaurant_id: int | None
    name: str | None
    orders: int
    open: int
    delivered: int
    cancelled: int
    failed: int
    promised: int
    early: int
    in_window: int
    late: int
    late_p50_s: float | None
    late_max_s: float | None
    open_late: int
    stage_orders: list[int]
    stage_p50_s: list[float | None]
    stage_p90_s: list[float | None]


class Reason(NamedTuple):
    """How many orders of a restaurant failed or were cancelled by an actor, for a reason."""

    restaurant_id: int
    state: str
    by: str
    reason: str | None
    orders: int


class DriverFigures(NamedTuple):
    """What became of the orders that a driver had."""

    driver_id: str
    name: str
    assignments: int
    delivered: int
    failed: int
    cancelled: int
    given_up: int


class ReportStore(Protocol):
    """Reports. Errors are DoorstepErrors."""

    async def read_report_day(self, city: str, of_date: date) -> Day: ...

    async def read_report_restaurants(self, city: str, day: Day) -> list[RestaurantFigures]: ...

    async def read_report_reasons(self, city: str, day: Day) -> list[Reason]: ...

    async def read_report_drivers(self, city: str, day: Day) -> list[DriverFigures]: ...

    async def read_report_places(
        self, driver_ids: Sequence[str], day: Day
    ) -> dict[str, list[Place]]: ...


@dataclass(frozen=True, slots=True)
class ReportQueries:
    """The ReportStore on PostgreSQL."""

    pool: Pool

    async def read_report_day(self, city: str, of_date: date) -> Day:
        """Return when a day begins and ends in a city. Raises UnknownServiceArea."""
        row = await fetch_one(
            self.pool, query("read_day", SQL_FILE), {"city": city, "date": of_date}
        )
        if row is None:
            raise UnknownServiceArea
        return Day(*row)

    async def read_report_restaurants(self, city: str, day: Day) -> list[RestaurantFigures]:
        """Read the city's figures, and then those of each restaurant."""
        rows = await fetch_all(
            self.pool, query("read_restaurants", SQL_FILE), _parameters(city, day)
        )
        return [RestaurantFigures(*row) for row in rows]

    async def read_report_reasons(self, city: str, day: Day) -> list[Reason]:
        """Read why orders failed or were cancelled, by restaurant."""
        rows = await fetch_all(self.pool, query("read_reasons", SQL_FILE), _parameters(city, day))
        return [Reason(*row) for row in rows]

    async def read_report_drivers(self, city: str, day: Day) -> list[DriverFigures]:
        """Read the drivers who had an order of the day, by id: up to one more than MAX_DRIVERS."""
        parameters = {**_parameters(city, day), "limit": MAX_DRIVERS + 1}
        rows = await fetch_all(self.pool, query("read_drivers", SQL_FILE), parameters)
        return [DriverFigures(*row) for row in rows]

    async def read_report_places(
        self, driver_ids: Sequence[str], day: Day
    ) -> dict[str, list[Place]]:
        """Read where drivers were on the day, every STEP_S, packed or not."""
        to_at = min(day.to_at, day.read_at)
        if to_at <= day.from_at:
            return {}
        parameters = {
            "driver_ids": list(driver_ids),
            "from_at": day.from_at,
            "to_at": to_at,
            "step_s": STEP_S,
        }
        rows = await fetch_all(self.pool, query("read_fleet_history", HISTORY_FILE), parameters)
        places: dict[str, list[Place]] = {}
        for driver_id, fix_at, lon_deg, lat_deg in rows:
            places.setdefault(driver_id, []).append((fix_at, lon_deg, lat_deg))
        return places


def _parameters(city: str, day: Day) -> dict[str, object]:
    return {"city": city, "from_at": day.from_at, "to_at": day.to_at}
