"""Offering orders to drivers, who accept or decline in driver_api."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from doorstep.http.openapi import IdempotencyKey, json_request, problems
from doorstep.http.request_body import json_body
from tracking_api.context import Context, Dispatcher, Staff
from tracking_api.orders.offer_schemas import (
    OfferAnswer,
    OfferChoice,
    Offers,
    UnassignedOrder,
    UnassignedOrders,
)

router = APIRouter(prefix="/orders", tags=["orders"])


@router.get(
    "/unassigned",
    summary="Confirmed orders with no driver left to offer them to",
    responses=problems(401, 403),
)
async def list_unassigned(
    _: Staff, context: Context, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> UnassignedOrders:
    """Every driver declined, or let the offer expire. The order stays confirmed."""
    found = await context.stores.offers.read_unassigned(limit)
    return UnassignedOrders(orders=[UnassignedOrder(**one._asdict()) for one in found])


@router.post(
    "/{order_id}/offers",
    status_code=201,
    summary="Offer the order to a named driver, or to the next one",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=json_request(
        OfferChoice, {"nearest": {}, "named": {"driver_id": "d17"}}, required=False
    ),
)
async def offer_order(
    order_id: UUID,
    staff: Dispatcher,
    context: Context,
    choice: Annotated[OfferChoice, Depends(json_body(OfferChoice, optional=True))],
    idempotency_key: IdempotencyKey = None,
) -> OfferAnswer:
    """Offer a confirmed order. It has one open offer at most; the policy's `offer_s` limits it.
    Without a name it goes to the nearest available driver, or of those with room for another order
    to the one with the least detour; drivers who were offered it before are left out."""
    offer = await context.stores.offers.offer_order(
        order_id, choice.driver_id, staff.actor_id, idempotency_key
    )
    return OfferAnswer.of(offer)


@router.get("/{order_id}/offers", summary="The offers of an order", responses=problems(401, 403))
async def list_offers(order_id: UUID, _: Staff, context: Context) -> Offers:
    """The oldest first."""
    found = await context.stores.offers.read_offers(order_id)
    return Offers(offers=[OfferAnswer.of(one) for one in found])
