"""Orders: create, command, list. For staff. `cancel_routes` is for customers, too."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from doorstep.credentials import new_customer_token, token_sha256
from doorstep.http.instants import QueryInstant
from doorstep.http.openapi import IdempotencyKey, json_request, problems
from doorstep.http.problems import UnusableRequest
from doorstep.http.request_body import json_body
from doorstep.store.records import Token
from tracking_api.context import AppContext, Context, Dispatcher, Staff
from tracking_api.orders.cursors import decode_cursor, encode_cursor
from tracking_api.orders.detail_schemas import NewOrder, OrderDetail, Orders, WholeOrder
from tracking_api.orders.schemas import (
    CreatedOrder,
    DriverChoice,
    Link,
    OrderAnswer,
    OrderState,
    order_members,
)
from tracking_api.orders.search import DueRange

router = APIRouter(prefix="/orders", tags=["orders"])

MAX_DUE_RANGE = timedelta(days=7)  # all of its orders are read, and sorted by their creation

_DESTINATION = {"lon_deg": 11.2486, "lat_deg": 43.7712}
_NEW_ORDERS = {
    "order": {"restaurant_id": 1, "destination": _DESTINATION},
    "with details": {
        "restaurant_id": 1,
        "destination": _DESTINATION,
        "external_id": "shop-1042",
        "customer_name": "Carla Rossi",
        "customer_phone": "+39 055 123456",
        "customer_language": "it",
        "contact_rule": "call",
        "pin": "auto",
        "address": "Via dei Servi 12",
        "door_note": "Second floor, ring Rossi.",
        "items": "2 x pizza margherita",
        "ready_at": "2026-11-21T19:10:00Z",
        "promised_from": "2026-11-21T19:30:00Z",
        "promised_to": "2026-11-21T19:45:00Z",
    },
    "any pickup place": {
        "pickup": {
            "name": "Bookshop",
            "address": "Piazza del Duomo 3",
            "lon_deg": 11.2556,
            "lat_deg": 43.7731,
            "phone": "+39 055 654321",
        },
        "destination": _DESTINATION,
    },
}


@router.post(
    "",
    status_code=201,
    summary="Create an order; the answer holds the customer's link",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=json_request(NewOrder, _NEW_ORDERS),
)
async def create_order(
    response: Response,
    staff: Dispatcher,
    context: Context,
    new: Annotated[NewOrder, Depends(json_body(NewOrder))],
    idempotency_key: IdempotencyKey = None,
) -> CreatedOrder:
    """Create an order. A repeat under your Idempotency-Key returns the same order without a token;
    if the first answer was lost, POST /orders/{order_id}/link makes a new link. The key with
    another body is refused; another member of staff may use the same key."""
    token = new_customer_token()
    order = await context.stores.orders.create_order(
        restaurant_id=new.restaurant_id,
        destination=(new.destination.lon_deg, new.destination.lat_deg),
        token_sha256=token_sha256(token),
        policy_id=new.policy_id,
        customer_name=new.customer_name,
        idempotency_key=idempotency_key,
        who=staff.actor_id,
        pickup=new.pickup.model_dump(exclude_none=True) if new.pickup else None,
        details=new.details(),
    )
    response.headers["Location"] = f"/orders/{order.order_id}"
    return CreatedOrder(
        **order_members(order),
        customer_token=token if order.created else None,
        customer_link=context.customer_link(order.order_id, token) if order.created else None,
    )


@router.get("", summary="List orders, the newest first", responses=problems(401, 403))
async def list_orders(
    request: Request,
    response: Response,
    _: Staff,
    context: Context,
    state: Annotated[list[OrderState] | None, Query(description="Only these states.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    q: Annotated[
        str | None,
        Query(
            max_length=100,
            pattern="^[^\\u0000]*$",
            description="Beginnings of words of the name, phone, address, note, items or "
            "external_id; or the beginning of an order's id.",
        ),
    ] = None,
    due_from: Annotated[
        QueryInstant | None,
        Query(
            description="Only orders due then or later, by a time of the promised window, "
            "`ready_at` or `scheduled_for`. At most 7 days; a missing end is 7 days from the "
            "other. Times of one order more than 2 days apart are not all found."
        ),
    ] = None,
    due_to: Annotated[
        QueryInstant | None, Query(description="Only orders due before; see `due_from`.")
    ] = None,
) -> Orders:
    """One page of orders; `Link: …; rel="next"` leads to the next."""
    after = decode_cursor(cursor) if cursor is not None else None
    text = q if q and q.strip() else None
    due = _due_range(due_from, due_to)
    found = await context.stores.orders.list_orders(state or [], limit + 1, after, text, due)
    page = found[:limit]
    next_cursor = None
    if len(found) > limit:
        next_cursor = encode_cursor(page[-1].order.created_at, page[-1].order.order_id)
        following = request.url.include_query_params(cursor=next_cursor)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return Orders(orders=[OrderDetail.with_details(one) for one in page], next_cursor=next_cursor)


@router.get("/{order_id}", summary="Read one order", responses=problems(401, 403, 404))
async def get_order(order_id: UUID, _: Staff, context: Context) -> WholeOrder:
    """An order as staff sees it, and who had it."""
    return WholeOrder.with_details(await context.stores.orders.read_order(order_id))


@router.post(
    "/{order_id}/assign",
    summary="Assign a named driver, or the nearest one available",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=json_request(
        DriverChoice, {"nearest": {}, "named": {"driver_id": "d17"}}, required=False
    ),
)
async def assign_order(
    order_id: UUID,
    staff: Dispatcher,
    context: Context,
    choice: Annotated[DriverChoice, Depends(json_body(DriverChoice, optional=True))],
    idempotency_key: IdempotencyKey = None,
) -> OrderAnswer:
    """Assign. Two requests never take the same driver."""
    return await _assign(context, staff, order_id, "assign", choice, idempotency_key)


@router.post(
    "/{order_id}/reassign",
    summary="Give the order to another driver, before it is picked up",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=json_request(DriverChoice, {"nearest": {}}, required=False),
)
async def reassign_order(
    order_id: UUID,
    staff: Dispatcher,
    context: Context,
    choice: Annotated[DriverChoice, Depends(json_body(DriverChoice, optional=True))],
    idempotency_key: IdempotencyKey = None,
) -> OrderAnswer:
    """Close the assignment and open the next. The previous driver is no longer shown."""
    return await _assign(context, staff, order_id, "reassign", choice, idempotency_key)


@router.post(
    "/{order_id}/confirm", summary="Confirm an order", responses=problems(401, 403, 404, 409)
)
async def confirm_order(
    order_id: UUID, staff: Dispatcher, context: Context, idempotency_key: IdempotencyKey = None
) -> OrderAnswer:
    """The restaurant has accepted it."""
    return await _command(context, staff, order_id, "confirm", None, idempotency_key)


@router.post(
    "/{order_id}/link",
    summary="Replace the customer's links with a new one",
    responses=problems(401, 403, 404),
)
async def replace_link(order_id: UUID, _: Staff, context: Context) -> Link:
    """For a link that was lost or leaked."""
    token = new_customer_token()
    await context.stores.orders.replace_customer_token(order_id, token_sha256(token))
    return Link(customer_token=token, customer_link=context.customer_link(order_id, token))


@router.delete(
    "/{order_id}/link",
    status_code=204,
    summary="Revoke the customer's links",
    responses=problems(401, 403, 404),
)
async def revoke_link(order_id: UUID, _: Staff, context: Context) -> None:
    """Revoke every link of the order at once."""
    await context.stores.orders.revoke_customer_tokens(order_id)


def _due_range(due_from: datetime | None, due_to: datetime | None) -> DueRange | None:
    """Return the range; None without one. Raises UnusableRequest if it is empty or too long."""
    if due_from is None and due_to is None:
        return None
    from_at = due_from or cast("datetime", due_to) - MAX_DUE_RANGE
    to_at = due_to or from_at + MAX_DUE_RANGE
    if not timedelta(0) < to_at - from_at <= MAX_DUE_RANGE:
        complaint = {
            "loc": "query.due_to",
            "msg": f"must be after `due_from` by at most {MAX_DUE_RANGE.days} days",
            "reason": "out_of_range",
        }
        raise UnusableRequest([complaint])
    return DueRange(from_at, to_at)


async def _assign(
    context: AppContext,
    staff: Token,
    order_id: UUID,
    command: str,
    choice: DriverChoice,
    key: str | None,
) -> OrderAnswer:
    if choice.stop_no is None:
        return await _command(context, staff, order_id, command, choice.driver_id, key)
    order = await context.stores.orders.assign_order(
        order_id, command, staff.actor_id, choice.driver_id, choice.stop_no, key
    )
    return OrderAnswer.of(order)


async def _command(
    context: AppContext,
    staff: Token,
    order_id: UUID,
    command: str,
    driver_id: str | None,
    key: str | None,
) -> OrderAnswer:
    order = await context.stores.orders.command_order(
        order_id, command, staff.actor_id, driver_id, key
    )
    return OrderAnswer.of(order)
