"""Histories of drivers, for staff: in pages, as files, and of all drivers in a viewport."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AwareDatetime
from starlette.responses import Response, StreamingResponse

from doorstep.http.openapi import DriverId, problems
from doorstep.http.problems import UnusableRequest
from tracking_api.context import AppContext, Context, Staff
from tracking_api.fleet.viewports import BoxQuery, parse_box
from tracking_api.history.cursors import decode_fix_key, encode_fix_key
from tracking_api.history.exports import MEDIA_TYPES, WRITERS, ExportKind, Writer
from tracking_api.history.features import MAX_POINTS, flag_jumps
from tracking_api.history.queries import HistoricFix
from tracking_api.history.schemas import DriverHistory, FleetHistory
from tracking_api.track.presenters import encode_json
from tracking_api.track.visibility import Position

router = APIRouter(tags=["fleet"])

MAX_DRIVER_RANGE = timedelta(days=31)
MAX_FLEET_RANGE = timedelta(hours=24)
HISTORY_COLUMNS = [
    "fix_at_ms",
    "received_at_ms",
    "lon_deg",
    "lat_deg",
    "accuracy_m",
    "speed_mps",
    "heading_deg",
    "jump",
]

Range = tuple[datetime, datetime]


async def _range(
    from_at: Annotated[AwareDatetime, Query(alias="from", description="Inclusive.")],
    to_at: Annotated[AwareDatetime, Query(alias="to", description="Exclusive.")],
) -> Range:
    return checked_range(from_at, to_at, MAX_DRIVER_RANGE)


TimeRange = Annotated[Range, Depends(_range)]


def checked_range(from_at: datetime, to_at: datetime, longest: timedelta) -> Range:
    """Return the range. Raises UnusableRequest for an empty one, or one longer than `longest`."""
    if not timedelta(0) < to_at - from_at <= longest:
        complaint = {
            "loc": "query.to",
            "msg": f"must be after `from` by at most {longest.total_seconds() / 3600:g} hours",
            "reason": "out_of_range",
        }
        raise UnusableRequest([complaint])
    return from_at, to_at


@router.get(
    "/drivers/{driver_id}/history",
    summary="Where a driver was, packed, in pages",
    responses=problems(401, 403, 404),
    response_model=DriverHistory,
)
async def get_driver_history(
    request: Request,
    driver_id: DriverId,
    _: Staff,
    context: Context,
    between: TimeRange,
    limit: Annotated[int, Query(ge=1, le=MAX_POINTS)] = MAX_POINTS,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Oldest first; `columns` names the values of each row. `Link: …; rel="next"` leads to the next
    page. `jump` is computed within a page. At most 31 days."""
    after = decode_fix_key(cursor) if cursor is not None else None
    found = await context.stores.history.read_driver_history(driver_id, *between, limit + 1, after)
    page = found[:limit]
    headers = {}
    next_cursor = None
    if len(found) > limit:
        next_cursor = encode_fix_key(page[-1].key)
        following = request.url.include_query_params(cursor=next_cursor)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    flags = flag_jumps(page)
    body = {
        "driver_id": driver_id,
        "columns": HISTORY_COLUMNS,
        "fixes": [_row(one, jump) for one, jump in zip(page, flags, strict=True)],
        "next_cursor": next_cursor,
    }
    return _json(body, headers)


@router.get(
    "/drivers/{driver_id}/history.{kind}",
    summary="Where a driver was, as a file",
    responses={
        200: {
            "description": "GPX 1.1 without the jumps; GeoJSON and CSV with them, flagged.",
            "content": {
                "application/gpx+xml": {"schema": {"type": "string"}},
                "application/geo+json": {"schema": {"type": "object"}},
                "text/csv": {"schema": {"type": "string"}},
            },
        },
        **problems(401, 403, 404),
    },
    response_class=Response,
)
async def download_driver_history(
    driver_id: DriverId, kind: ExportKind, _: Staff, context: Context, between: TimeRange
) -> Response:
    """Streamed page by page. At most 31 days."""
    first = await context.stores.history.read_driver_history(driver_id, *between, MAX_POINTS)
    writer = WRITERS[kind](driver_id)
    name = f"{driver_id}-{between[0]:%Y%m%dT%H%M%S}.{kind}"
    return StreamingResponse(
        _write_pages(context, driver_id, between, writer, first),
        media_type=MEDIA_TYPES[kind],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


async def _write_pages(
    context: AppContext, driver_id: str, between: Range, writer: Writer, page: list[HistoricFix]
) -> AsyncIterator[str]:
    yield writer.head()
    while page:
        yield writer.page(page)
        if len(page) < MAX_POINTS:
            break
        page = await context.stores.history.read_driver_history(
            driver_id, *between, MAX_POINTS, page[-1].key
        )
    yield writer.foot()


@router.get(
    "/fleet/history",
    summary="Where the drivers in a viewport were",
    responses=problems(401, 403),
    response_model=FleetHistory,
)
async def get_fleet_history(
    _: Staff,
    context: Context,
    from_at: Annotated[AwareDatetime, Query(alias="from", description="Inclusive.")],
    to_at: Annotated[AwareDatetime, Query(alias="to", description="Exclusive.")],
    bbox: BoxQuery = None,
) -> Response:
    """The drivers that are in it now, at most 500; at most 240 places of each.

    `fixes` are rows of `columns`; `driver` is an index into `driver_ids`. At most 24 hours.
    """
    between = checked_range(from_at, to_at, MAX_FLEET_RANGE)
    found = await context.stores.history.read_replay(parse_box(bbox), *between)
    numbers = {driver_id: n for n, driver_id in enumerate(found.driver_ids)}
    return _json(
        {
            "step_s": found.step_s,
            "driver_ids": found.driver_ids,
            "more": found.more,
            "columns": ["driver", "fix_at_ms", "lon_deg", "lat_deg"],
            "fixes": [
                [numbers[driver_id], _ms(fix_at), lon_deg, lat_deg]
                for driver_id, fix_at, lon_deg, lat_deg in found.fixes
            ],
        }
    )


def _row(position: Position, jump: bool) -> list[Any]:
    return [
        _ms(position.fix_at),
        _ms(position.received_at),
        position.lon_deg,
        position.lat_deg,
        position.accuracy_m,
        position.speed_mps,
        position.heading_deg,
        jump,
    ]


def _ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def _json(body: object, headers: dict[str, str] | None = None) -> Response:
    return Response(encode_json(body), media_type="application/json", headers=headers)
