"""How orders end, for staff: delivered, failed, photographed, taken back. And orders from a CSV."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from doorstep.administration.csv_table import MAX_ROWS
from doorstep.credentials import new_customer_token, token_sha256
from doorstep.errors import NoPhoto
from doorstep.http.csv_body import MAX_CSV_BYTES, read_csv_body
from doorstep.http.failure_body import FAILURE_REQUEST, FailureBody
from doorstep.http.openapi import IdempotencyKey, Responses, json_request, problems
from doorstep.http.request_body import json_body
from doorstep.photos import MEDIA_TYPES, Photo
from tracking_api.context import Context, Dispatcher, Staff
from tracking_api.orders.end_schemas import (
    FailedOrder,
    HandOver,
    ImportedOrders,
    ImportedRow,
    OpenReturnAnswer,
    OpenReturns,
    RetryOrder,
    ReturnAnswer,
)
from tracking_api.orders.imports import IMPORT_PATH, read_orders
from tracking_api.orders.schemas import OrderAnswer, order_members

router = APIRouter(tags=["orders"])

PHOTO_ANSWER: dict[str, Any] = {
    "description": "The image, without metadata.",
    "content": {one: {"schema": {"type": "string", "format": "binary"}} for one in MEDIA_TYPES},
}
_EXAMPLE = (
    "external_id,restaurant_id,lon_deg,lat_deg,customer_name,address,promised_to,pin\r\n"
    "shop-1043,1,11.2486,43.7712,Carla Rossi,Via dei Servi 12,2026-11-21T19:45:00Z,auto\r\n"
)


@router.post(
    "/orders/{order_id}/pick_up",
    summary="The order is on board",
    responses=problems(401, 403, 404, 409),
)
async def pick_up_order(
    order_id: UUID, staff: Dispatcher, context: Context, idempotency_key: IdempotencyKey = None
) -> OrderAnswer:
    """For a courier who cannot say so."""
    return OrderAnswer.of(
        await context.stores.orders.command_order(
            order_id, "pick_up", staff.actor_id, None, idempotency_key
        )
    )


@router.post(
    "/orders/{order_id}/deliver",
    summary="The customer has the order",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=json_request(
        HandOver, {"note": {"note": "The customer confirmed by phone."}}, required=False
    ),
)
async def deliver_order(
    order_id: UUID,
    staff: Dispatcher,
    context: Context,
    hand_over: Annotated[HandOver, Depends(json_body(HandOver, optional=True))],
    idempotency_key: IdempotencyKey = None,
) -> OrderAnswer:
    """Needs no PIN; the order says that staff delivered it."""
    return OrderAnswer.of(
        await context.stores.orders.end_order(
            order_id, "deliver", staff.actor_id, hand_over.note, idempotency_key
        )
    )


@router.post(
    "/orders/{order_id}/fail",
    summary="Fail an order",
    responses=problems(401, 403, 404, 409, 413, 415),
    openapi_extra=FAILURE_REQUEST,
)
async def fail_order(
    order_id: UUID,
    staff: Dispatcher,
    context: Context,
    failure: FailureBody,
    idempotency_key: IdempotencyKey = None,
) -> FailedOrder:
    """It was picked up and cannot be delivered. With the next step `retry`, a new order is created
    and confirmed, and the answer holds its customer's link; with `return`, the courier takes the
    order back to the restaurant."""
    token = new_customer_token()
    failed = await context.stores.orders.fail_order(
        order_id,
        staff.actor_id,
        reason=failure.reason if failure else None,
        note=failure.note if failure else None,
        next_step=failure.next_step if failure else None,
        token_sha256=token_sha256(token),
        idempotency_key=idempotency_key,
    )
    retry_id, is_new = failed.retry_order_id, failed.is_new
    retry = None
    if retry_id is not None:
        retry = RetryOrder(
            order_id=retry_id,
            customer_token=token if is_new else None,
            customer_link=context.customer_link(retry_id, token) if is_new else None,
            promised_from=failed.retry_promised_from,
            promised_to=failed.retry_promised_to,
        )
    return FailedOrder(**order_members(failed.order), retry=retry)


@router.get(
    "/orders/{order_id}/photo",
    summary="The courier's photo of the delivery",
    response_class=Response,
    responses={200: PHOTO_ANSWER, **problems(401, 403, 404)},
)
async def get_photo(request: Request, order_id: UUID, staff: Staff, context: Context) -> Response:
    """Kept for the days of the retention `photos`."""
    context.note_read(request, staff)
    return photo_response(await context.stores.orders.read_photo(order_id))


def photo_response(photo: Photo | None) -> Response:
    """Return the answer with a photo. Raises NoPhoto."""
    if photo is None:
        raise NoPhoto
    headers = {"Content-Disposition": "inline", "Cache-Control": "private, no-store"}
    return Response(photo.content, media_type=photo.media_type, headers=headers)


@router.post(
    "/orders/{order_id}/returned",
    summary="The failed order is back at the restaurant",
    responses=problems(401, 403, 404),
)
async def end_return(order_id: UUID, staff: Dispatcher, context: Context) -> ReturnAnswer:
    """For a courier who cannot say so. A repeat changes nothing."""
    done = await context.stores.orders.end_return(order_id, staff.actor_id)
    return ReturnAnswer(**done._asdict())


@router.get(
    "/returns",
    summary="Failed orders on their way back, the first one first",
    responses=problems(401, 403),
)
async def list_returns(
    _: Staff, context: Context, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> OpenReturns:
    """Each until its courier, or staff, has ended the way back."""
    found = await context.stores.orders.list_returns(limit)
    return OpenReturns(returns=[OpenReturnAnswer(**one._asdict()) for one in found])


def _import_problems() -> Responses:
    documented = problems(401, 403, 413, 415)
    documented[413]["description"] = f"The body has more than {MAX_CSV_BYTES // 1024:,} KiB."
    documented[415]["description"] = "The body is not text/csv."
    documented[422]["description"] = (
        f"The file is not such a table, or has more than {MAX_ROWS:,} rows; see `errors`."
    )
    return documented


@router.post(
    IMPORT_PATH,
    summary="Create orders from CSV",
    responses=_import_problems(),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "text/csv": {
                    "schema": {"type": "string"},
                    "examples": {"file": {"value": _EXAMPLE}},
                }
            },
        }
    },
)
async def import_orders(
    request: Request,
    staff: Dispatcher,
    context: Context,
    dry_run: Annotated[
        bool, Query(description="Check and count only: nothing is written.")
    ] = False,
) -> ImportedOrders:
    """All rows or none: a 422 lists the bad ones with `line` and `field`. A row whose
    `external_id` you imported before, with the same values, changes nothing."""
    content = await read_csv_body(request)
    rows = await asyncio.to_thread(read_orders, content)
    done = await context.stores.orders.import_orders(rows, staff.actor_id, dry_run=dry_run)
    created = [one for one in done if one.token is not None]
    return ImportedOrders(
        dry_run=dry_run,
        unchanged=len(done) - len(created),
        created=len(created),
        orders=[
            ImportedRow(
                line=one.line,
                external_id=one.external_id,
                order_id=one.order.order_id,
                customer_link=context.customer_link(one.order.order_id, one.token or ""),
            )
            for one in ([] if dry_run else created)
        ],
    )
