"""Dispatch, for staff: open orders by urgency, a search, and the map's tiles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from doorstep.http.direct_routes import DirectRoute
from doorstep.http.openapi import problems
from doorstep.http.problems import UnusableRequest
from tracking_api.context import AppContext, Context, Staff, admit_staff
from tracking_api.fleet.dispatch_queries import STUCK_AFTER_MIN, UNPROMISED_MIN, TileFilters
from tracking_api.fleet.dispatch_schemas import (
    DispatchOrder,
    DispatchOrders,
    DriverFound,
    OrderFound,
    SearchAnswer,
)
from tracking_api.fleet.presence import Presence
from tracking_api.fleet.schemas import DriverState, Duty
from tracking_api.fleet.tiles import FRESH_FOR_S
from tracking_api.orders.schemas import OrderState, order_members

router = APIRouter(prefix="/fleet", tags=["fleet"])

MAX_ZOOM = 22
_TILE_NUMBER = re.compile("[0-9]{1,7}")
TILE_TYPE = "application/vnd.mapbox-vector-tile"


@router.get("/orders", summary="Open orders, the soonest due first", responses=problems(401, 403))
async def list_attention_orders(
    _: Staff, context: Context, limit: Annotated[int, Query(ge=1, le=2000)] = 500
) -> DispatchOrders:
    """By `due_at`. Each is waiting for a courier, `stuck` or under way.

    An order is stuck after `stuck_after_min` minutes in one state (`no_progress`), or when nothing
    has arrived from its courier for 5 minutes (`courier_lost`). `allowed` lists staff's commands
    by state.
    """
    found = await context.stores.dispatch.read_attention_orders(limit)
    return DispatchOrders(
        at=found.now,
        counts={str(group): count for group, count in found.counts.items()},
        stuck_after_min=STUCK_AFTER_MIN,
        unpromised_min=UNPROMISED_MIN,
        allowed=await context.stores.dispatch.read_staff_commands(),
        orders=[
            DispatchOrder(
                **order_members(one.order),
                state_at=one.state_at,
                group=one.group,
                stuck=one.stuck,
                due_at=one.due_at,
                promised_to=one.promised_to,
                address=one.address,
                external_id=one.external_id,
            )
            for one in found.orders
        ],
    )


@router.get("/search", summary="Find drivers and orders", responses=problems(401, 403))
async def search(
    _: Staff,
    context: Context,
    q: Annotated[
        str,
        Query(
            min_length=1,
            max_length=100,
            pattern="^[^\\u0000]+$",
            description="A part of a driver's id or name; the beginning of an order's id, or the "
            "beginnings of words of its details.",
        ),
    ],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> SearchAnswer:
    """Over the whole fleet, whatever the map shows."""
    text = q.strip() or q
    drivers = await context.stores.dispatch.search_drivers(text, limit)
    orders = await context.stores.dispatch.search_orders(text, limit)
    found = {
        order_id: OrderFound(order_id=order_id, state=OrderState(state), driver_id=driver_id)
        for order_id, state, driver_id in orders
    }
    for one in await context.stores.orders.list_orders([], limit, None, text):
        order = one.order
        known = found.get(order.order_id)
        found[order.order_id] = OrderFound(
            order_id=order.order_id,
            state=OrderState(order.state),
            driver_id=known.driver_id if known else order.driver_id,
            customer_name=order.customer_name,
            external_id=one.details["external_id"],
            address=one.details["address"],
        )
    return SearchAnswer(
        drivers=[DriverFound(**one._asdict()) for one in drivers],
        orders=list(found.values())[:limit],
    )


@router.get(
    "/tiles/{z}/{x}/{y}.mvt",
    summary="The fleet as a vector tile",
    responses={
        200: {
            "description": "A layer `drivers`; each point has `count`, and where that is 1 also "
            "`driver_id`, `state`, `duty` and `presence`; `is_returning` where an available driver "
            "takes a failed order back. More than 1,000 in a tile: clusters.",
            "content": {TILE_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(401, 403),
    },
    response_class=Response,
)
async def get_tile(
    _: Staff,
    context: Context,
    z: Annotated[int, Path(ge=0, le=MAX_ZOOM)],
    x: Annotated[int, Path(ge=0, lt=2**MAX_ZOOM)],
    y: Annotated[int, Path(ge=0, lt=2**MAX_ZOOM)],
    state: Annotated[list[DriverState] | None, Query()] = None,
    duty: Annotated[list[Duty] | None, Query()] = None,
    presence: Annotated[list[Presence] | None, Query()] = None,
) -> Response:
    """For a fleet that is too large to be streamed driver by driver."""
    if max(x, y) >= 2**z:
        complaint = {"loc": "path", "msg": "no such tile", "reason": "out_of_range"}
        raise UnusableRequest([complaint])
    filters = TileFilters(_sorted(state), _sorted(duty), _sorted(presence))
    return await _answer_tile(context, z, x, y, filters)


async def _get_tile_directly(request: Request) -> Response | None:
    """Without filters."""
    texts = [request.path_params[name] for name in "zxy"]
    if request.scope["query_string"] or not all(_TILE_NUMBER.fullmatch(one) for one in texts):
        return None
    z, x, y = map(int, texts)
    if z > MAX_ZOOM or max(x, y) >= 2**z:
        return None
    context, _ = await admit_staff(request)
    return await _answer_tile(context, z, x, y, TileFilters())


DIRECT = [DirectRoute("/fleet/tiles/{z}/{x}/{y}.mvt", _get_tile_directly)]


async def _answer_tile(
    context: AppContext, z: int, x: int, y: int, filters: TileFilters
) -> Response:
    tile = await context.tiles.get(z, x, y, filters)
    headers = {"Cache-Control": f"private, max-age={FRESH_FOR_S:g}"}
    return Response(tile, media_type=TILE_TYPE, headers=headers)


def _sorted(values: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(sorted(set(values or ())))
