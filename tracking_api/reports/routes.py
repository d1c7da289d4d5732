"""A day's report of a city, as JSON and CSV."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response, StreamingResponse

from doorstep.administration.fields import AreaName
from doorstep.http.openapi import problems
from doorstep.http.problems import UnusableRequest
from tracking_api.context import AppContext, Context, Staff
from tracking_api.history.pacing import off_the_loop
from tracking_api.reports.distance import Place, travelled_m
from tracking_api.reports.queries import (
    MAX_DRIVERS,
    Day,
    DriverFigures,
    Reason,
    RestaurantFigures,
)
from tracking_api.reports.report_csv import ReportTable
from tracking_api.reports.report_json import ReportDocument
from tracking_api.reports.schemas import DayReport

DRIVERS_AT_ONCE = 10  # of a statement: 10 days of places 20 s apart are 43,200 look-ups, 0.4 s
REPORT_COST = 10  # as a file of a driver's history
FIRST_YEAR, LAST_YEAR = 2000, 2100

router = APIRouter(prefix="/reports/days", tags=["reports"])

ReportDate = Annotated[datetime.date, Path(examples=["2026-11-30"])]
City = Annotated[AreaName, Query(description="A service area; its time zone makes the day.")]


@router.get(
    "/{date}.csv",
    summary="A day's report, as a table",
    responses={
        200: {"content": {"text/csv": {"schema": {"type": "string"}}}},
        **problems(401, 403, 404, 429),
    },
    response_class=Response,
)
async def download_day_report(
    date: ReportDate, city: City, holder: Staff, context: Context
) -> Response:
    """A row for the city, each restaurant, reason and driver: `kind` says which."""
    context.limit_staff_history(holder, REPORT_COST)
    parts = await _report(context, city, date, ReportTable(city, date.isoformat()))
    name = f"{city}-{date.isoformat()}.csv"
    return StreamingResponse(
        parts,
        media_type="text/csv",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get(
    "/{date}",
    summary="A day's report",
    responses=problems(401, 403, 404, 429),
    response_model=DayReport,
)
async def get_day_report(date: ReportDate, city: City, holder: Staff, context: Context) -> Response:
    """Orders created on the day, lateness, time per stage, kilometres per driver, and why orders
    failed or were cancelled. Streamed: the drivers come last."""
    context.limit_staff_history(holder, REPORT_COST)
    parts = await _report(context, city, date, ReportDocument(city, date.isoformat()))
    return StreamingResponse(parts, media_type="application/json")


async def _report(
    context: AppContext, city: str, date: datetime.date, writer: ReportDocument | ReportTable
) -> AsyncIterator[str]:
    """Read all but the kilometres, so that a failure has its status. Raises UnknownServiceArea."""
    if not FIRST_YEAR <= date.year <= LAST_YEAR:
        complaint = {
            "loc": "path.date",
            "msg": f"must be in the years {FIRST_YEAR} to {LAST_YEAR}",
            "reason": "out_of_range",
        }
        raise UnusableRequest([complaint])
    reports = context.stores.reports
    day = await reports.read_report_day(city, date)
    restaurants = await reports.read_report_restaurants(city, day)
    reasons = await reports.read_report_reasons(city, day)
    drivers = await reports.read_report_drivers(city, day)
    return _parts(context, day, writer, restaurants, reasons, drivers)


async def _parts(
    context: AppContext,
    day: Day,
    writer: ReportDocument | ReportTable,
    restaurants: Sequence[RestaurantFigures],
    reasons: Sequence[Reason],
    drivers: Sequence[DriverFigures],
) -> AsyncIterator[str]:
    yield writer.head(day)
    yield await off_the_loop(10 * len(restaurants), writer.restaurants, restaurants)
    yield writer.reasons(reasons)
    shown = drivers[:MAX_DRIVERS]
    for start in range(0, len(shown), DRIVERS_AT_ONCE):
        some = shown[start : start + DRIVERS_AT_ONCE]
        ids = [one.driver_id for one in some]
        places = await context.stores.reports.read_report_places(ids, day)
        fixes = sum(map(len, places.values()))
        yield await off_the_loop(fixes, _driver_rows, writer, some, places)
    yield writer.foot(more_drivers=len(drivers) > MAX_DRIVERS)


def _driver_rows(
    writer: ReportDocument | ReportTable,
    drivers: Sequence[DriverFigures],
    places: dict[str, list[Place]],
) -> str:
    return writer.drivers(
        [(one, round(travelled_m(places.get(one.driver_id, ())) / 1000, 2)) for one in drivers]
    )
