"""Cancel an order: its customer, or staff."""

from __future__ import annotations

import asyncio
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request

from doorstep.credentials import token_sha256
from doorstep.errors import BadLink, Forbidden
from doorstep.http.openapi import IdempotencyKey, json_request, problems
from doorstep.http.request_body import json_body
from doorstep.http.sign_in_limit import client_address
from doorstep.http.tokens import identify
from tracking_api.context import AppContext, Context, StaffToken
from tracking_api.orders.schemas import Cancellation, CustomersOrder, OrderAnswer, OrderState
from tracking_api.track.visibility import TrackLink

router = APIRouter(prefix="/orders/{order_id}", tags=["orders"])


@router.post(
    "/cancel",
    summary="Cancel an order: staff until it is delivered, its customer until it is picked up",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=json_request(
        Cancellation, {"why": {"reason": "The restaurant is closed today."}}, required=False
    ),
)
async def cancel_order(
    request: Request,
    order_id: UUID,
    token: StaffToken,
    context: Context,
    cancellation: Annotated[Cancellation, Depends(json_body(Cancellation, optional=True))],
    idempotency_key: IdempotencyKey = None,
) -> OrderAnswer | CustomersOrder:
    """Cancel in the name of the token's holder. The customer reads staff's reason."""
    started_s = asyncio.get_running_loop().time()
    serves = context.stores.serves
    holder = None
    if serves != "customers":
        holder = await identify(context.find_token, token)
    if holder is None or holder.role == "customer":
        try:
            if serves == "staff":
                raise BadLink
            return await _cancel_as_customer(context, order_id, token, idempotency_key)
        except BadLink:
            return await context.links.refuse(started_s, client_address(request))
    if not holder.is_staff("dispatcher"):
        raise Forbidden
    order = await context.stores.orders.end_order(
        order_id, "cancel", holder.actor_id, cancellation.reason or None, idempotency_key
    )
    return OrderAnswer.of(order)


async def _cancel_as_customer(
    context: AppContext, order_id: UUID, token: str | None, idempotency_key: str | None
) -> CustomersOrder:
    link = TrackLink(order_id, token_sha256(token or ""))
    left = await context.stores.customers.cancel_by_link(link, idempotency_key)
    return CustomersOrder(
        order_id=left.order_id, state=OrderState(left.state), order_seq=left.order_seq
    )
