"""Drivers: who they are, and the credentials that they begin with."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from doorstep.administration.fields import DriverChange, NewDriver
from doorstep.credentials import DeviceSecrets
from doorstep.http.openapi import DriverId, json_request, problems
from doorstep.http.request_body import json_body
from tracking_api.administration.csv_routes import csv_routes
from tracking_api.administration.pages import Cursor, Limit, Retired, read_page
from tracking_api.administration.queries import DRIVER
from tracking_api.administration.schemas import CreatedDriver, DriverRow, Drivers
from tracking_api.context import Admin, AppContext, Context, Dispatcher

router = APIRouter(prefix="/drivers", tags=["administration"])
tables = csv_routes(
    DRIVER,
    "administration",
    "driver_id,name,vehicle,phone\nanna,Anna,cargo_bike,+39 055 1234567\n",
)


@router.get("", summary="List drivers, by id", responses=problems(401, 403))
async def list_drivers(
    request: Request,
    response: Response,
    staff: Dispatcher,
    context: Context,
    limit: Limit = 500,
    cursor: Cursor = None,
    retired: Retired = False,
) -> Drivers:
    """One page, for dispatchers: it has phone numbers. `Link: …; rel="next"` leads to the next."""
    context.note_read(request, staff)
    page, next_cursor = await read_page(request, response, context, DRIVER, limit, cursor, retired)
    return Drivers(drivers=[DriverRow(**row) for row in page], next_cursor=next_cursor)


@router.post(
    "",
    status_code=201,
    summary="Add a driver; the answer holds the secrets",
    responses=problems(401, 403, 409, 413, 415),
    openapi_extra=json_request(
        NewDriver,
        {
            "with a phone": {
                "id": "anna",
                "name": "Anna",
                "vehicle": "cargo_bike",
                "phone": "+39 055 1234567",
            },
            "the least": {"id": "bruno"},
        },
    ),
)
async def add_driver(
    response: Response,
    admin: Admin,
    context: Context,
    new: Annotated[NewDriver, Depends(json_body(NewDriver))],
) -> CreatedDriver:
    """A retired id may be added again, with new secrets. `POST /credentials/drivers` does the same
    without name, vehicle and phone."""
    values = new.given()
    driver_id = values.pop("id")
    secrets = DeviceSecrets.draw("driver")
    store = context.stores.administration
    await store.add_driver(driver_id, values, secrets, admin.actor_id)
    row = await store.read_row(DRIVER, driver_id)
    response.headers["Location"] = f"/drivers/{driver_id}"
    return CreatedDriver(**row, mqtt_password=secrets.mqtt_password, token=secrets.token or "")


@router.patch(
    "/{driver_id}",
    summary="Change a driver's name, vehicle or phone",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=json_request(
        DriverChange, {"vehicle": {"vehicle": "car"}, "no phone": {"phone": None}}
    ),
)
async def change_driver(
    driver_id: DriverId,
    admin: Admin,
    context: Context,
    change: Annotated[DriverChange, Depends(json_body(DriverChange))],
) -> DriverRow:
    """Only the given fields change."""
    store = context.stores.administration
    await store.change_row(DRIVER, driver_id, change.given(), admin.actor_id)
    return await _row(context, driver_id)


@router.post("/{driver_id}/retire", summary="Retire a driver", responses=problems(401, 403, 404))
async def retire_driver(driver_id: DriverId, admin: Admin, context: Context) -> DriverRow:
    """The same as `DELETE /credentials/drivers/{driver_id}`: the secrets end, the driver is off
    duty and off all lists. An open order stays until it is reassigned."""
    people = context.stores.people
    await people.change_device("driver", driver_id, "remove", admin.actor_id)
    return await _row(context, driver_id)


async def _row(context: AppContext, driver_id: str) -> DriverRow:
    return DriverRow(**await context.stores.administration.read_row(DRIVER, driver_id))
