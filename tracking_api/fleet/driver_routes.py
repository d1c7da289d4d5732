"""The fleet, for staff."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from doorstep.fix.instants import MAX_EPOCH_MS
from doorstep.http.openapi import DriverId, json_request, problems
from doorstep.http.request_body import json_body
from tracking_api.context import Context, Staff
from tracking_api.fleet.queries import POSITION_COLUMNS
from tracking_api.schemas import (
    DriverAnswer,
    DriverPositions,
    NearDriver,
    NearDrivers,
    Reporting,
    ReportingAnswer,
    Restaurants,
)
from tracking_api.track.presenters import position_feature_of

router = APIRouter(tags=["fleet"])


@router.get(
    "/drivers/positions",
    summary="Every driver's newest position, packed",
    responses=problems(401, 403),
    response_model=DriverPositions,
)
async def get_positions(
    _: Staff,
    parts: Context,
    since: Annotated[
        int | None,
        Query(
            ge=0,
            le=MAX_EPOCH_MS,
            description="Only what may be new since this `at_ms` of an earlier answer.",
        ),
    ] = None,
) -> Response:
    """For a map that asks once a second."""
    at_ms, rows = await parts.store.read_positions(since)
    body = {"at_ms": at_ms, "columns": POSITION_COLUMNS, "drivers": rows}
    return Response(json.dumps(body, separators=(",", ":")), media_type="application/json")


@router.get(
    "/drivers/nearest", summary="The nearest available drivers", responses=problems(401, 403)
)
async def get_nearest(
    _: Staff,
    parts: Context,
    lon_deg: Annotated[float, Query(ge=-180, le=180, allow_inf_nan=False)],
    lat_deg: Annotated[float, Query(ge=-90, le=90, allow_inf_nan=False)],
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> NearDrivers:
    """Drivers on duty and without an order, heard of within the last 5 minutes."""
    now, found = await parts.store.read_nearest(lon_deg, lat_deg, limit)
    return NearDrivers(
        drivers=[
            NearDriver(
                driver_id=near.driver_id,
                distance_m=round(near.distance_m, 1),
                position=position_feature_of(near.spot, now),
            )
            for near in found
        ]
    )


@router.get("/drivers/{driver_id}", summary="One driver", responses=problems(401, 403, 404))
async def get_driver(driver_id: DriverId, _: Staff, parts: Context) -> DriverAnswer:
    """Duty, state, open order, newest position."""
    return await parts.store.read_driver(driver_id)


@router.get(
    "/drivers/{driver_id}/reporting",
    summary="How a driver's device reports",
    responses=problems(401, 403, 404),
)
async def get_reporting(driver_id: DriverId, _: Staff, parts: Context) -> ReportingAnswer:
    """As it was last set; or as every device begins."""
    return await parts.store.read_reporting(driver_id)


@router.put(
    "/drivers/{driver_id}/reporting",
    summary="Set how a driver's device reports",
    responses=problems(401, 403, 404, 413, 415),
    openapi_extra=json_request(
        Reporting,
        {
            "save the battery": {
                "mode": "dead_reckoning",
                "off_by_m": 25,
                "heartbeat_s": 30,
                "batch_s": 20,
            },
            "as at first": {"mode": "all"},
        },
    ),
)
async def set_reporting(
    driver_id: DriverId,
    _: Staff,
    parts: Context,
    wanted: Annotated[Reporting, Depends(json_body(Reporting))],
) -> ReportingAnswer:
    """Replaces what was set before. The device gets it over MQTT, when it is next online."""
    await parts.store.set_reporting(driver_id, wanted)
    return await parts.store.read_reporting(driver_id)


@router.get("/restaurants", summary="Every restaurant", responses=problems(401, 403))
async def get_restaurants(_: Staff, parts: Context) -> Restaurants:
    """Where orders come from."""
    return Restaurants(restaurants=await parts.store.read_restaurants())
