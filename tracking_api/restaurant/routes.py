"""A restaurant's own orders, for its staff. No other role is admitted here, and this role nowhere
else: the database finds its token in these statements only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request

from doorstep.credentials import token_sha256
from doorstep.errors import Unauthenticated
from doorstep.http.guarded_protocol import note_good_token
from doorstep.http.openapi import IdempotencyKey, json_request, problems
from doorstep.http.problems import UnusableRequest
from doorstep.http.request_body import json_body
from tracking_api.context import AppContext, Context, StaffToken
from tracking_api.restaurant.arrival import arrivals
from tracking_api.restaurant.queries import RestaurantOrder, RestaurantSession, authenticate
from tracking_api.restaurant.schemas import (
    Confirmation,
    OwnOrder,
    OwnOrders,
    OwnRestaurant,
    Readiness,
)

READY_WITHIN = timedelta(days=1)

router = APIRouter(prefix="/restaurant/orders", tags=["restaurant"])


class Member:
    """A member of a restaurant's staff, with the hash of their token."""

    def __init__(self, sha256: bytes, session: RestaurantSession) -> None:
        self.sha256 = sha256
        self.session = session


async def _member(token: StaffToken, context: Context) -> Member:
    """Look the token up for each request: a revoked one ends at once."""
    if not token:
        raise Unauthenticated
    sha256 = token_sha256(token)
    session = await authenticate(context.stores.restaurants, sha256)
    note_good_token()
    return Member(sha256, session)


RestaurantMember = Annotated[Member, Depends(_member)]


@router.get("", summary="The restaurant's own orders", responses=problems(401))
async def list_own_orders(
    request: Request, member: RestaurantMember, context: Context
) -> OwnOrders:
    """Open orders, then those that ended in the last two hours, the newest first. The page reads
    them every few seconds."""
    orders = await context.stores.restaurants.read_restaurant_orders(member.sha256)
    context.read_log.add(member.session.name, f"{request.method} /restaurant/orders")
    now = datetime.now(UTC)
    return OwnOrders(
        now=now,
        restaurant=OwnRestaurant.of(member.session),
        orders=_answers(context, member, orders, now),
    )


@router.post(
    "/{order_id}/confirm",
    summary="Confirm an order, and say when it is ready",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=json_request(
        Confirmation, {"at": {"ready_at": "2026-11-30T19:10:00Z"}, "plain": {}}, required=False
    ),
)
async def confirm_own_order(
    order_id: UUID,
    member: RestaurantMember,
    context: Context,
    body: Annotated[Confirmation, Depends(json_body(Confirmation, optional=True))],
    idempotency_key: IdempotencyKey = None,
) -> OwnOrder:
    """`ready_at` is set before the confirmation, so a confirmed order has it."""
    if body.ready_at is not None:
        _check_ready_at(body.ready_at)
        await context.stores.restaurants.set_ready_at(member.sha256, order_id, body.ready_at)
    await context.stores.restaurants.confirm_as_restaurant(member.sha256, order_id, idempotency_key)
    return await _answer(context, member, order_id)


@router.put(
    "/{order_id}/ready-at",
    summary="Say when an order is ready",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=json_request(Readiness, {"at": {"ready_at": "2026-11-30T19:10:00Z"}}),
)
async def set_ready_at(
    order_id: UUID,
    member: RestaurantMember,
    context: Context,
    body: Annotated[Readiness, Depends(json_body(Readiness))],
) -> OwnOrder:
    """Until the order is picked up."""
    _check_ready_at(body.ready_at)
    await context.stores.restaurants.set_ready_at(member.sha256, order_id, body.ready_at)
    return await _answer(context, member, order_id)


def _check_ready_at(ready_at: datetime) -> None:
    if abs(ready_at - datetime.now(UTC)) > READY_WITHIN:
        complaint = {
            "loc": "body.ready_at",
            "msg": "must be within a day from now",
            "reason": "out_of_range",
        }
        raise UnusableRequest([complaint])


async def _answer(context: AppContext, member: Member, order_id: UUID) -> OwnOrder:
    order = await context.stores.restaurants.read_restaurant_order(member.sha256, order_id)
    return _answers(context, member, [order], datetime.now(UTC))[0]


def _answers(
    context: AppContext, member: Member, orders: list[RestaurantOrder], now: datetime
) -> list[OwnOrder]:
    expected = arrivals(orders, member.session, now, context.estimate)
    return [OwnOrder.of(one, expected) for one in orders]
