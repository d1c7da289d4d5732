"""Series of numbers over time, for staff: a list, a range of one, and a stream of one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response

from doorstep.fix import ID_PATTERN
from doorstep.http.instants import QueryInstant
from doorstep.http.openapi import DriverId, problems
from doorstep.http.problems import UnusableRequest
from tracking_api.context import AppContext, Context, Staff, StaffToken
from tracking_api.live.follower_stream import FollowerStream, StreamRequest
from tracking_api.series.queries import MAX_POINTS, Measure, SeriesName, UnknownSeries
from tracking_api.series.schemas import SeriesEntry, SeriesPage, SeriesSample

router = APIRouter(prefix="/series", tags=["series"])

DEFAULT_RANGE = timedelta(hours=1)

NamePart = Annotated[str, Path(pattern=f"^{ID_PATTERN}$")]
FromAt = Annotated[QueryInstant | None, Query(alias="from")]
ToAt = Annotated[QueryInstant | None, Query(alias="to")]
Points = Annotated[int, Query(ge=2, le=MAX_POINTS)]


@router.get("", summary="Every series", responses=problems(401, 403))
async def get_series_list(
    _: Staff,
    context: Context,
    prefix: Annotated[str, Query(max_length=200, pattern="^[A-Za-z0-9_/-]*$")] = "",
    after: Annotated[str, Query(max_length=200, pattern="^[A-Za-z0-9_/-]*$")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> SeriesPage:
    """Those of sources by name, then each driver's own `battery` and `speed_mps`.

    `after` is the `next_after` of the previous page.
    """
    found = await context.stores.series.list_series(prefix, after, limit + 1)
    page = [SeriesEntry(**one._asdict()) for one in found[:limit]]
    return SeriesPage(series=page, next_after=page[-1].name if len(found) > limit else None)


@router.get(
    "/{source_id}/{measure}/stream",
    summary="Follow a series: server-sent events, or a WebSocket",
    responses={
        200: {
            "description": "`points` each, from those of the last 10 s on; "
            "`Last-Event-ID` resumes after one.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        101: {"description": "The same as JSON texts, where a WebSocket is requested."},
        **problems(401, 403, 404),
    },
    response_class=Response,
)
async def follow_series(
    source_id: NamePart,
    measure: NamePart,
    request: Request,
    _: Staff,
    token: StaffToken,
    context: Context,
    last_event_id: Annotated[str | None, Header(max_length=2000)] = None,
    query_event_id: Annotated[str | None, Query(alias="last_event_id", max_length=2000)] = None,
) -> Response:
    """A viewer that reads too slowly gets only the latest points."""
    name = SeriesName(source_id, measure)
    if not await context.stores.series.has_series(name):
        raise UnknownSeries
    stream_request = StreamRequest(request, token, context)
    follower = await context.live.series.open(name, last_event_id or query_event_id)
    return FollowerStream(stream_request, follower)


@router.get(
    "/driver/{driver_id}/{measure}",
    summary="A driver's own battery or speed",
    responses=problems(401, 403, 404),
)
async def get_drivers_series(
    driver_id: DriverId,
    measure: Measure,
    _: Staff,
    context: Context,
    from_at: FromAt = None,
    to_at: ToAt = None,
    points: Points = 1000,
) -> SeriesSample:
    """Read from the history of fixes. It has no stream."""
    name = SeriesName(driver_id, measure, of_driver=True)
    return await _sample(context, name, from_at, to_at, points)


@router.get("/{source_id}/{measure}", summary="A series", responses=problems(401, 403, 404))
async def get_series(
    source_id: NamePart,
    measure: NamePart,
    _: Staff,
    context: Context,
    from_at: FromAt = None,
    to_at: ToAt = None,
    points: Points = 1000,
) -> SeriesSample:
    """At most `points` points that keep every spike. `from` is inclusive (default: an hour before
    `to`), `to` is exclusive (default: now)."""
    name = SeriesName(source_id, measure)
    return await _sample(context, name, from_at, to_at, points)


async def _sample(
    context: AppContext,
    name: SeriesName,
    from_at: datetime | None,
    to_at: datetime | None,
    points: int,
) -> SeriesSample:
    from_at, to_at = _range(from_at, to_at)
    found = await context.stores.series.read_series(name, from_at, to_at, points)
    return SeriesSample(name=str(name), from_at=from_at, to_at=to_at, **found._asdict())


def _range(from_at: datetime | None, to_at: datetime | None) -> tuple[datetime, datetime]:
    """Return the range with defaults. Raises UnusableRequest for an empty one."""
    to_at = to_at or (from_at + DEFAULT_RANGE if from_at else datetime.now(UTC))
    from_at = from_at or to_at - DEFAULT_RANGE
    if from_at >= to_at:
        complaint = {"loc": "query.from", "msg": "is not before `to`", "reason": "out_of_range"}
        raise UnusableRequest([complaint])
    return from_at, to_at
