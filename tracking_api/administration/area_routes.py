"""Service areas: boxes in which coordinates are expected."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from doorstep.administration.fields import AreaChange, NewArea
from doorstep.fix.value import ID_PATTERN
from doorstep.http.openapi import json_request, problems
from doorstep.http.request_body import json_body
from tracking_api.administration.csv_routes import csv_routes
from tracking_api.administration.pages import Cursor, Limit, Retired, read_page
from tracking_api.administration.queries import AREA
from tracking_api.administration.schemas import AreaRow, Areas
from tracking_api.context import Admin, AppContext, Context, Staff

router = APIRouter(prefix="/service-areas", tags=["administration"])
tables = csv_routes(
    AREA,
    "administration",
    "name,west,south,east,north,time_zone\nhelsinki,24.93,60.16,24.96,60.18,Europe/Helsinki\n",
)

AreaName = Annotated[str, Path(pattern=f"^{ID_PATTERN}$", examples=["helsinki"])]


@router.get("", summary="List service areas, by name", responses=problems(401, 403))
async def list_areas(
    request: Request,
    response: Response,
    _: Staff,
    context: Context,
    limit: Limit = 500,
    cursor: Cursor = None,
    retired: Retired = False,
) -> Areas:
    """One page; `Link: …; rel="next"` leads to the next."""
    page, next_cursor = await read_page(request, response, context, AREA, limit, cursor, retired)
    return Areas(service_areas=[AreaRow(**row) for row in page], next_cursor=next_cursor)


@router.post(
    "",
    status_code=201,
    summary="Add a service area",
    responses=problems(401, 403, 409, 413, 415),
    openapi_extra=json_request(
        NewArea,
        {
            "Helsinki": {
                "name": "helsinki",
                "west": 24.93,
                "south": 60.16,
                "east": 24.96,
                "north": 60.18,
                "time_zone": "Europe/Helsinki",
            }
        },
    ),
)
async def add_area(
    response: Response,
    admin: Admin,
    context: Context,
    new: Annotated[NewArea, Depends(json_body(NewArea))],
) -> AreaRow:
    """A retired name may be added again."""
    store = context.stores.administration
    await store.create_row(AREA, new.given(), admin.actor_id)
    response.headers["Location"] = f"/service-areas/{new.name}"
    return await _row(context, new.name)


@router.get("/{name}", summary="One service area", responses=problems(401, 403, 404))
async def get_area(name: AreaName, _: Staff, context: Context) -> AreaRow:
    """A retired one too."""
    return await _row(context, name)


@router.patch(
    "/{name}",
    summary="Change a service area",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=json_request(AreaChange, {"wider": {"east": 11.4}}),
)
async def change_area(
    name: AreaName,
    admin: Admin,
    context: Context,
    change: Annotated[AreaChange, Depends(json_body(AreaChange))],
) -> AreaRow:
    """Only the given fields change."""
    await context.stores.administration.change_row(AREA, name, change.given(), admin.actor_id)
    return await _row(context, name)


@router.post("/{name}/retire", summary="Retire a service area", responses=problems(401, 403, 404))
async def retire_area(name: AreaName, admin: Admin, context: Context) -> AreaRow:
    """It leaves the lists. Swapped coordinates in it are still detected."""
    await context.stores.administration.retire_row(AREA, name, admin.actor_id)
    return await _row(context, name)


async def _row(context: AppContext, name: str) -> AreaRow:
    return AreaRow(**await context.stores.administration.read_row(AREA, name))
