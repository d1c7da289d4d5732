"""Series of numbers over time, for staff: the list, a stretch of one, and one as it goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import AwareDatetime
from starlette.responses import Response

from doorstep.fix import ID_PATTERN
from doorstep.http.openapi import DriverId, problems
from doorstep.http.problems import UnusableRequest
from doorstep.http.tokens import BearerToken
from tracking_api.context import Context, Staff
from tracking_api.live.following import FollowerStream, Seat
from tracking_api.series.queries import (
    MOST_POINTS,
    Measure,
    SeriesName,
    SeriesPage,
    SeriesSample,
    UnknownSeries,
)

router = APIRouter(prefix="/series", tags=["series"])

SHOWN = timedelta(hours=1)  # without `from`

NamePart = Annotated[str, Path(pattern=f"^{ID_PATTERN}$")]
FromAt = Annotated[AwareDatetime | None, Query(alias="from")]
ToAt = Annotated[AwareDatetime | None, Query(alias="to")]
Points = Annotated[int, Query(ge=2, le=MOST_POINTS)]


@router.get("", summary="Every series", responses=problems(401, 403))
async def get_series_list(
    _: Staff,
    parts: Context,
    prefix: Annotated[str, Query(max_length=200, pattern="^[A-Za-z0-9_/-]*$")] = "",
    after: Annotated[str, Query(max_length=200, pattern="^[A-Za-z0-9_/-]*$")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> SeriesPage:
    """Those of sources by name, then each driver's own `battery` and `speed_mps`.

    `after` is the `next_after` of the page before.
    """
    found = await parts.store.list_series(prefix, after, limit + 1)
    page = found[:limit]
    return SeriesPage(series=page, next_after=page[-1].name if len(found) > limit else None)


@router.get(
    "/{source_id}/{measure}/stream",
    summary="A series as it goes on: server-sent events, or a WebSocket",
    responses={
        200: {
            "description": "`points` each, beginning with those of the last 10 s; "
            "`Last-Event-ID` goes on after one.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        101: {"description": "The same as JSON texts, where a WebSocket is asked for."},
        **problems(401, 403, 404),
    },
    response_class=Response,
)
async def follow_series(
    source_id: NamePart,
    measure: NamePart,
    request: Request,
    _: Staff,
    token: BearerToken,
    parts: Context,
    last_event_id: Annotated[str | None, Header(max_length=2000)] = None,
    asked_event_id: Annotated[str | None, Query(alias="last_event_id", max_length=2000)] = None,
) -> Response:
    """A viewer that reads too slowly gets the latest points only."""
    name = SeriesName(source_id, measure)
    if not await parts.store.has_series(name):
        raise UnknownSeries
    seat = Seat(request, token, parts)
    follower = await parts.live.series.find(name, last_event_id or asked_event_id)
    return FollowerStream(seat, follower)


@router.get(
    "/driver/{driver_id}/{measure}",
    summary="A driver's own battery or speed",
    responses=problems(401, 403, 404),
)
async def get_drivers_series(
    driver_id: DriverId,
    measure: Measure,
    _: Staff,
    parts: Context,
    from_at: FromAt = None,
    to_at: ToAt = None,
    points: Points = 1000,
) -> SeriesSample:
    """Out of the history of fixes, like any other series; it has no stream of its own."""
    name = SeriesName(driver_id, measure, of_driver=True)
    return await parts.store.read_series(name, *_stretch(from_at, to_at), points)


@router.get("/{source_id}/{measure}", summary="A series", responses=problems(401, 403, 404))
async def get_series(
    source_id: NamePart,
    measure: NamePart,
    _: Staff,
    parts: Context,
    from_at: FromAt = None,
    to_at: ToAt = None,
    points: Points = 1000,
) -> SeriesSample:
    """At most `points` of it, and no spike lost. `from` is inclusive (by default an hour before
    `to`), `to` is not (by default now)."""
    name = SeriesName(source_id, measure)
    return await parts.store.read_series(name, *_stretch(from_at, to_at), points)


def _stretch(from_at: datetime | None, to_at: datetime | None) -> tuple[datetime, datetime]:
    """What is asked for. Raises UnusableRequest for a stretch that ends before it begins."""
    try:
        to_at = to_at or (from_at + SHOWN if from_at else datetime.now(UTC))
        from_at = from_at or to_at - SHOWN
    except OverflowError:
        from_at = to_at = datetime.now(UTC)
    if from_at >= to_at:
        complaint = {"loc": "query.from", "msg": "is not before `to`", "reason": "out_of_range"}
        raise UnusableRequest([complaint])
    return from_at, to_at
