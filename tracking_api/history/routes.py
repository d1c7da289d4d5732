"""Histories of drivers, for staff: in pages, as files, and of all drivers in a viewport."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
import numpy as np
from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from doorstep.fix import ID_PATTERN
from doorstep.http.direct_routes import DirectRoute, query_of
from doorstep.http.instants import QueryInstant, is_usable_instant
from doorstep.http.openapi import DriverId, problems
from doorstep.http.problems import UnusableRequest
from doorstep.store.records import Token
from tracking_api.context import AppContext, Context, Staff, admit_staff
from tracking_api.fleet.viewports import BoxQuery, parse_box
from tracking_api.history.cursors import decode_fix_key, encode_fix_key
from tracking_api.history.exports import MEDIA_TYPES, WRITERS, ExportKind, Writer
from tracking_api.history.features import MAX_POINTS, flag_jumps
from tracking_api.history.fixes import HistoricFix, PackedFixes, values_or_none
from tracking_api.history.pacing import off_the_loop
from tracking_api.history.queries import Replay
from tracking_api.history.schemas import DriverHistory, FleetHistory, FleetStates
from tracking_api.track.presenters import encode_json
from tracking_api.track.visibility import Position

router = APIRouter(tags=["fleet"])

MAX_DRIVER_RANGE = timedelta(days=31)
MAX_FLEET_RANGE = timedelta(hours=24)
MAX_STATE_DRIVERS = 100  # × 74 bytes: a query of 8 KiB
EXPORT_COST = 10  # a file of 31 days has as many pages as 30 histories
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
    from_at: Annotated[QueryInstant, Query(alias="from", description="Inclusive.")],
    to_at: Annotated[QueryInstant, Query(alias="to", description="Exclusive.")],
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
    holder: Staff,
    context: Context,
    between: TimeRange,
    limit: Annotated[int, Query(ge=1, le=MAX_POINTS)] = MAX_POINTS,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Oldest first; `columns` names the values of each row. `Link: …; rel="next"` leads to the next
    page. `jump` is computed within a page. At most 31 days."""
    return await _answer_history(request, holder, context, driver_id, between, limit, cursor)


class _HistoryQuery(msgspec.Struct):
    since: Annotated[datetime, msgspec.Meta(tz=True)] = msgspec.field(name="from")
    before: Annotated[datetime, msgspec.Meta(tz=True)] = msgspec.field(name="to")


_HISTORY_QUERY = frozenset(("from", "to"))
_DRIVER_ID = re.compile(ID_PATTERN)


async def _get_driver_history_directly(request: Request) -> Response | None:
    """The first page."""
    driver_id = request.path_params["driver_id"]
    try:
        wanted = msgspec.convert(query_of(request, _HISTORY_QUERY), _HistoryQuery, strict=False)
    except msgspec.ValidationError:
        return None
    between = wanted.since, wanted.before
    if not (_DRIVER_ID.fullmatch(driver_id) and all(map(is_usable_instant, between))):
        return None
    context, holder = await admit_staff(request)
    between = checked_range(*between, MAX_DRIVER_RANGE)
    return await _answer_history(request, holder, context, driver_id, between, MAX_POINTS, None)


DIRECT = [DirectRoute("/drivers/{driver_id}/history", _get_driver_history_directly)]


async def _answer_history(
    request: Request,
    holder: Token,
    context: AppContext,
    driver_id: str,
    between: Range,
    limit: int,
    cursor: str | None,
) -> Response:
    context.limit_staff_history(holder)
    after = decode_fix_key(cursor) if cursor is not None else None
    found = await context.stores.history.read_driver_history(driver_id, *between, limit + 1, after)
    page = found[:limit]
    headers = {}
    next_cursor = None
    if len(found) > limit:
        next_cursor = encode_fix_key(page[-1].key)
        following = request.url.include_query_params(cursor=next_cursor)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    body = await off_the_loop(len(page), _encode_page, driver_id, page, next_cursor)
    return Response(body, media_type="application/json", headers=headers)


def _encode_page(driver_id: str, page: Sequence[Position], next_cursor: str | None) -> bytes:
    flags = flag_jumps(page)
    if isinstance(page, PackedFixes):
        ms = np.round(page.instants_us / 1000).astype(np.int64).tolist()
        columns = zip(ms, page.places.tolist(), values_or_none(page.extras), flags, strict=True)
        rows = [[*at, *place, *extra, jump] for at, place, extra, jump in columns]
    else:
        rows = [_row(one, jump) for one, jump in zip(page, flags, strict=True)]
    return encode_json(
        {
            "driver_id": driver_id,
            "columns": HISTORY_COLUMNS,
            "fixes": rows,
            "next_cursor": next_cursor,
        }
    )


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
    driver_id: DriverId, kind: ExportKind, holder: Staff, context: Context, between: TimeRange
) -> Response:
    """Streamed page by page. At most 31 days."""
    context.limit_staff_history(holder, EXPORT_COST)
    first = await context.stores.history.read_driver_history(driver_id, *between, MAX_POINTS)
    writer = WRITERS[kind](driver_id)
    name = f"{driver_id}-{between[0]:%Y%m%dT%H%M%S}.{kind}"
    return StreamingResponse(
        _write_pages(context, driver_id, between, writer, first),
        media_type=MEDIA_TYPES[kind],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


async def _write_pages(
    context: AppContext, driver_id: str, between: Range, writer: Writer, page: Sequence[HistoricFix]
) -> AsyncIterator[str]:
    yield writer.head()
    while page:
        yield await off_the_loop(len(page), writer.page, page)
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
    holder: Staff,
    context: Context,
    from_at: Annotated[QueryInstant, Query(alias="from", description="Inclusive.")],
    to_at: Annotated[QueryInstant, Query(alias="to", description="Exclusive.")],
    bbox: BoxQuery = None,
) -> Response:
    """The drivers that are in it now, at most 500; at most 240 places of each.

    `fixes` are rows of `columns`; `driver` is an index into `driver_ids`. At most 24 hours.
    """
    context.limit_staff_history(holder)
    between = checked_range(from_at, to_at, MAX_FLEET_RANGE)
    found = await context.stores.history.read_replay(parse_box(bbox), *between)
    body = await off_the_loop(len(found.fixes), _encode_replay, found)
    return Response(body, media_type="application/json")


@router.get(
    "/fleet/states",
    summary="The states of drivers in the past",
    responses=problems(401, 403),
    response_model=FleetStates,
)
async def get_fleet_states(
    holder: Staff,
    context: Context,
    driver_id: Annotated[
        list[Annotated[str, Field(pattern=f"^{ID_PATTERN}$")]],
        Query(min_length=1, max_length=MAX_STATE_DRIVERS),
    ],
    from_at: Annotated[QueryInstant, Query(alias="from", description="Inclusive.")],
    to_at: Annotated[QueryInstant, Query(alias="to", description="Exclusive.")],
) -> Response:
    """When each driver entered which state; the first row may be up to 24 hours before the range.

    A driver is in no known state before their first row. At most 24 hours, and 31 days of one
    driver.
    """
    context.limit_staff_history(holder)
    longest = MAX_DRIVER_RANGE if len(driver_id) == 1 else MAX_FLEET_RANGE
    between = checked_range(from_at, to_at, longest)
    found = await context.stores.decisions.read_driver_states(driver_id, *between)
    members = {"columns": ["driver_id", "entered_at_ms", "state"], "states": found}
    return Response(encode_json(members), media_type="application/json")


def _encode_replay(found: Replay) -> bytes:
    numbers = {driver_id: n for n, driver_id in enumerate(found.driver_ids)}
    return encode_json(
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
