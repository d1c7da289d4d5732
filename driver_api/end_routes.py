"""How a driver's orders end: delivered, failed, photographed, taken back."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request

from doorstep.http.failure_body import FAILURE_REQUEST, FailureBody
from doorstep.http.openapi import IdempotencyKey, json_request, problems
from doorstep.http.photo_body import PHOTO_REQUEST, photo_problems, read_photo
from doorstep.http.request_body import json_body
from driver_api.context import Context, DriverToken
from driver_api.schemas import Delivery, OrderAnswer, ReturnedOrder, StoredPhoto

router = APIRouter(prefix="/drivers/{driver_id}/orders/{order_id}", tags=["drivers"])

PHOTO_PATHS = r"(/drive)?/drivers/[^/]+/orders/[^/]+/photo"
"""The addresses that limit their bodies themselves."""


@router.post(
    "/delivered",
    summary="The customer has the order",
    operation_id="deliver",
    responses=problems(401, 403, 404, 409, 413, 415, 429),
    openapi_extra=json_request(
        Delivery,
        {"with the PIN": {"pin": "4711"}, "with a note": {"note": "Left with the porter."}},
        required=False,
    ),
)
async def deliver_order(
    order_id: UUID,
    token: DriverToken,
    context: Context,
    delivery: Annotated[Delivery, Depends(json_body(Delivery, optional=True))],
    idempotency_key: IdempotencyKey = None,
) -> OrderAnswer:
    """An order with `has_pin` needs its PIN: 409 `wrong-pin` without it, and after five wrong ones
    within 10 minutes 429 `pin-locked`."""
    order = await context.store.deliver_order(
        token, order_id, delivery.pin, delivery.note, idempotency_key
    )
    return OrderAnswer(**order._asdict())


@router.post(
    "/failed",
    summary="The order can't be delivered",
    operation_id="fail",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=FAILURE_REQUEST,
)
async def fail_order(
    order_id: UUID,
    token: DriverToken,
    context: Context,
    failure: FailureBody,
    idempotency_key: IdempotencyKey = None,
) -> OrderAnswer:
    """A body gives the reason, one of the driver's `failure_reasons`, and perhaps a next step. A
    retry is a new order that staff confirms; an order to return is in the driver's `returns`."""
    order = await context.store.fail_order(
        token,
        order_id,
        failure.reason if failure else None,
        failure.note if failure else None,
        failure.next_step if failure else None,
        idempotency_key,
    )
    return OrderAnswer(**order._asdict())


@router.post(
    "/photo",
    summary="A photo of the delivery",
    responses=photo_problems(401, 403, 404, 409),
    openapi_extra=PHOTO_REQUEST,
)
async def store_photo(
    request: Request, order_id: UUID, token: DriverToken, context: Context
) -> StoredPhoto:
    """From the pick-up until an hour after the order's end; a further one replaces it. Metadata,
    such as where the photo was taken, are removed."""
    photo = await read_photo(request)
    stored_at = await context.store.store_photo(token, order_id, photo.media_type, photo.content)
    return StoredPhoto(
        order_id=order_id,
        media_type=photo.media_type,
        bytes=len(photo.content),
        stored_at=stored_at,
    )


@router.post(
    "/returned",
    summary="The failed order is back at the restaurant",
    responses=problems(401, 403, 404),
)
async def end_return(order_id: UUID, token: DriverToken, context: Context) -> ReturnedOrder:
    """Ends the way back. A repeat changes nothing."""
    done = await context.store.end_return(token, order_id)
    return ReturnedOrder(**done._asdict())
