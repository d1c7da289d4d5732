"""Drivers, for staff."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from doorstep.fix.instants import MAX_EPOCH_MS
from doorstep.http.direct_routes import DirectRoute, query_of
from doorstep.http.instants import format_instant
from doorstep.http.openapi import DriverId, json_request, problems
from doorstep.http.request_body import json_body
from doorstep.sampling import SamplingPolicy
from tracking_api.context import AppContext, Context, Dispatcher, Staff, admit_staff
from tracking_api.fleet.driver_queries import DriverStop
from tracking_api.fleet.queries import POSITION_COLUMNS
from tracking_api.fleet.schemas import (
    DriverAnswer,
    DriverPositions,
    DriverStops,
    NearDrivers,
    SamplingAnswer,
    SamplingSettings,
    StopSequence,
)
from tracking_api.track.presenters import encode_json, position_members

router = APIRouter(tags=["fleet"])


@router.get(
    "/drivers/positions",
    summary="Every driver's newest position, packed",
    responses=problems(401, 403),
    response_model=DriverPositions,
)
async def get_positions(
    _: Staff,
    context: Context,
    since: Annotated[
        int | None,
        Query(
            ge=0,
            le=MAX_EPOCH_MS,
            description="Only what may be new since this `at_ms` of an earlier answer.",
        ),
    ] = None,
) -> Response:
    """For a map that polls once a second."""
    at_ms, rows = await context.stores.fleet.read_positions(since)
    return _json({"at_ms": at_ms, "columns": POSITION_COLUMNS, "drivers": rows})


@router.get(
    "/drivers/nearest",
    summary="The nearest drivers who may take an order",
    responses=problems(401, 403),
    response_model=NearDrivers,
)
async def get_nearest(
    _: Staff,
    context: Context,
    lon_deg: Annotated[float, Query(ge=-180, le=180, allow_inf_nan=False)],
    lat_deg: Annotated[float, Query(ge=-90, le=90, allow_inf_nan=False)],
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    with_orders: Annotated[
        bool, Query(description="Also those with orders and room for another.")
    ] = False,
) -> Response:
    """Drivers on duty whose newest fix is at most 5 minutes old, without an order or, if wanted,
    with fewer than the limit (3)."""
    return await _answer_nearest(context, lon_deg, lat_deg, limit, with_orders=with_orders)


async def _get_nearest_directly(request: Request) -> Response | None:
    query = query_of(request, _NEAREST_QUERY)
    try:
        wanted = msgspec.convert(query, _Nearest, strict=False)
    except msgspec.ValidationError:
        return None
    context, _ = await admit_staff(request)
    return await _answer_nearest(
        context, wanted.lon_deg, wanted.lat_deg, wanted.limit, with_orders=False
    )


DIRECT = [DirectRoute("/drivers/nearest", _get_nearest_directly)]


class _Nearest(msgspec.Struct):
    lon_deg: Annotated[float, msgspec.Meta(ge=-180, le=180)]
    lat_deg: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


_NEAREST_QUERY = frozenset(_Nearest.__struct_fields__)


async def _answer_nearest(
    context: AppContext, lon_deg: float, lat_deg: float, limit: int, *, with_orders: bool
) -> Response:
    now, found = await context.stores.drivers.read_nearest(
        lon_deg, lat_deg, limit, with_orders=with_orders
    )
    drivers = [
        {
            "driver_id": near.driver_id,
            "distance_m": round(near.distance_m, 1),
            "position": position_members(near.position, now),
            "open_orders": near.open_orders,
            "is_returning": near.is_returning,
        }
        for near in found
    ]
    return _json({"drivers": drivers})


@router.get(
    "/drivers/{driver_id}",
    summary="One driver",
    responses=problems(401, 403, 404),
    response_model=DriverAnswer,
)
async def get_driver(driver_id: DriverId, staff: Staff, context: Context) -> Response:
    """Duty, state, open order, newest position. Viewers get no phone number."""
    driver = await context.stores.drivers.read_driver(driver_id)
    position = driver.position
    return _json(
        {
            "driver_id": driver.driver_id,
            "name": driver.name,
            "duty": driver.duty,
            "state": driver.state,
            "order_id": driver.order_id,
            "position": position_members(position, driver.now) if position else None,
            "is_returning": driver.is_returning,
            "battery": driver.battery,
            "presence": driver.presence,
            "vehicle": driver.vehicle,
            "phone": driver.phone if staff.is_staff("dispatcher") else None,
            "retired_at": driver.retired_at and format_instant(driver.retired_at),
            "phone_app": driver.phone_app._asdict() if driver.phone_app.state else None,
            "orders": [
                _stop_members(one) for one in await _stops(context, driver.order_id, driver_id)
            ],
        }
    )


async def _stops(context: AppContext, order_id: UUID | None, driver_id: str) -> list[DriverStop]:
    return await context.stores.drivers.read_stops(driver_id) if order_id is not None else []


def _stop_members(stop: DriverStop) -> dict[str, Any]:
    """Return the members of a DriverStopAnswer."""
    lon_deg, lat_deg = stop.restaurant
    return {
        "order_id": stop.order_id,
        "stop_no": stop.stop_no,
        "state": stop.state,
        "assigned_at": format_instant(stop.assigned_at),
        "restaurant": {"name": stop.restaurant_name, "lon_deg": lon_deg, "lat_deg": lat_deg},
        "destination": {"lon_deg": stop.destination[0], "lat_deg": stop.destination[1]},
        "customer_name": stop.customer_name,
    }


@router.put(
    "/drivers/{driver_id}/stops",
    summary="Put a driver's stops into another sequence",
    responses=problems(401, 403, 404, 409, 413, 415),
    response_model=DriverStops,
    openapi_extra=json_request(
        StopSequence,
        {"two": {"order_ids": [f"0b1f3c1e-8f4b-4c39-9f0e-6b1f4a5d2c0{n}" for n in (1, 2)]}},
    ),
)
async def set_stops(
    driver_id: DriverId,
    staff: Dispatcher,
    context: Context,
    sequence: Annotated[StopSequence, Depends(json_body(StopSequence))],
) -> Response:
    """All of the driver's open orders, the next customer's first. An order that is picked up stays
    before those that are not. Customers see the courier while their own stop is the next."""
    drivers = context.stores.drivers
    await drivers.set_stops(driver_id, sequence.order_ids, staff.actor_id)
    return _json({"orders": [_stop_members(one) for one in await drivers.read_stops(driver_id)]})


@router.get(
    "/drivers/{driver_id}/reporting",
    summary="How a driver's device samples its fixes",
    responses=problems(401, 403, 404),
)
async def get_sampling(driver_id: DriverId, _: Staff, context: Context) -> SamplingAnswer:
    """The settings last set, or a device's defaults."""
    return await _sampling(driver_id, context)


@router.put(
    "/drivers/{driver_id}/reporting",
    summary="Set how a driver's device samples its fixes",
    responses=problems(401, 403, 404, 413, 415),
    openapi_extra=json_request(
        SamplingSettings,
        {
            "save the battery": {
                "mode": "dead_reckoning",
                "off_by_m": 25,
                "heartbeat_s": 30,
                "batch_s": 20,
            },
            "the default": {"mode": "all"},
        },
    ),
)
async def set_sampling(
    driver_id: DriverId,
    _: Staff,
    context: Context,
    settings: Annotated[SamplingSettings, Depends(json_body(SamplingSettings))],
) -> SamplingAnswer:
    """Pins the settings: they no longer follow demand. The device gets them over MQTT, at once or
    when it is next online."""
    policy = SamplingPolicy(**settings.model_dump())
    await context.stores.drivers.set_sampling(driver_id, policy)
    return await _sampling(driver_id, context)


@router.delete(
    "/drivers/{driver_id}/reporting",
    summary="Let a driver's device follow demand again",
    responses=problems(401, 403, 404),
)
async def unpin_sampling(driver_id: DriverId, _: Staff, context: Context) -> SamplingAnswer:
    """Ends a pin. The settings are those of an idle driver, and of the demand within seconds."""
    await context.stores.drivers.unpin_sampling(driver_id)
    return await _sampling(driver_id, context)


async def _sampling(driver_id: str, context: AppContext) -> SamplingAnswer:
    found = await context.stores.drivers.read_sampling(driver_id)
    return SamplingAnswer(
        driver_id=driver_id,
        set_at=found.set_at,
        delivered=found.is_delivered,
        demand=found.demand,
        **msgspec.structs.asdict(found.policy),
    )


def _json(members: object) -> Response:
    return Response(encode_json(members), media_type="application/json")
