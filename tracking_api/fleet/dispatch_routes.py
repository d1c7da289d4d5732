"""What dispatch asks, for staff: who needs somebody, who is who, and the map's tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from doorstep.http.openapi import problems
from doorstep.http.problems import UnusableRequest
from tracking_api.context import Context, Staff
from tracking_api.fleet.dispatch_queries import STUCK_AFTER_MIN, Filters
from tracking_api.fleet.tiles import FRESH_FOR_S
from tracking_api.schemas import (
    DispatchOrder,
    DispatchOrders,
    DriverFound,
    DriverState,
    Duty,
    OrderFound,
    OrderState,
    SearchAnswer,
    order_members,
)
from tracking_api.track.visibility import Presence

router = APIRouter(prefix="/fleet", tags=["fleet"])

MOST_ZOOM = 22
TILE_TYPE = "application/vnd.mapbox-vector-tile"


@router.get(
    "/orders", summary="Open orders, those that need somebody first", responses=problems(401, 403)
)
async def list_attention_orders(
    _: Staff, parts: Context, limit: Annotated[int, Query(ge=1, le=2000)] = 500
) -> DispatchOrders:
    """Without a courier, the longest waiting first; then `stuck` ones; then those under way.

    An order is stuck after `stuck_after_min` minutes in one state (`no_progress`), or when nothing
    was heard of its courier for 5 minutes (`courier_lost`). `allowed` are staff's commands by
    state.
    """
    now, counts, found, allowed = await parts.store.read_attention_orders(limit)
    return DispatchOrders(
        at=now,
        counts={str(group): count for group, count in counts.items()},
        stuck_after_min=STUCK_AFTER_MIN,
        allowed=allowed,
        orders=[
            DispatchOrder(
                **order_members(one.order), state_at=one.state_at, group=one.group, stuck=one.stuck
            )
            for one in found
        ],
    )


@router.get("/search", summary="Find drivers and orders", responses=problems(401, 403))
async def search(
    _: Staff,
    parts: Context,
    q: Annotated[
        str,
        Query(
            min_length=1,
            max_length=100,
            pattern="^[^\\u0000]+$",
            description="A part of a driver's id or name, or the beginning of an order's id.",
        ),
    ],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> SearchAnswer:
    """Over the whole fleet, wherever the map is."""
    drivers, orders = await parts.store.search(q.strip() or q, limit)
    return SearchAnswer(
        drivers=[DriverFound(**one._asdict()) for one in drivers],
        orders=[
            OrderFound(order_id=order_id, state=OrderState(state), driver_id=driver_id)
            for order_id, state, driver_id in orders
        ],
    )


@router.get(
    "/tiles/{z}/{x}/{y}.mvt",
    summary="The fleet as a vector tile",
    responses={
        200: {
            "description": "A layer `drivers`; each point has `count`, and where that is 1 also "
            "`driver_id`, `state`, `duty` and `presence`. More than 1,000 in a tile: clusters.",
            "content": {TILE_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(401, 403),
    },
    response_class=Response,
)
async def get_tile(
    _: Staff,
    parts: Context,
    z: Annotated[int, Path(ge=0, le=MOST_ZOOM)],
    x: Annotated[int, Path(ge=0, lt=2**MOST_ZOOM)],
    y: Annotated[int, Path(ge=0, lt=2**MOST_ZOOM)],
    state: Annotated[list[DriverState] | None, Query()] = None,
    duty: Annotated[list[Duty] | None, Query()] = None,
    presence: Annotated[list[Presence] | None, Query()] = None,
) -> Response:
    """For a fleet that is too large to be followed driver by driver."""
    if max(x, y) >= 2**z:
        complaint = {"loc": "path", "msg": "no such tile", "reason": "out_of_range"}
        raise UnusableRequest([complaint])
    filters = Filters(_sorted(state), _sorted(duty), _sorted(presence))
    tile = await parts.tiles.get(z, x, y, filters)
    headers = {"Cache-Control": f"private, max-age={FRESH_FOR_S:g}"}
    return Response(tile, media_type=TILE_TYPE, headers=headers)


def _sorted(values: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(sorted(set(values or ())))
