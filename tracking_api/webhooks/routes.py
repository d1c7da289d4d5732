"""Webhooks and their deliveries, for admins."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from doorstep.credentials import new_webhook_secret
from doorstep.http.openapi import json_request, problems
from doorstep.http.request_body import json_body
from tracking_api.context import Admin, AppContext, Context
from tracking_api.webhooks.schemas import (
    CreatedWebhook,
    Deliveries,
    DeliveryAnswer,
    NewWebhook,
    Outcome,
    WebhookAnswer,
    WebhookChange,
    WebhookEvent,
    Webhooks,
)

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

DeliveryId = Annotated[int, Path(ge=1, le=2**53)]


@router.get("", summary="All webhooks", responses=problems(401, 403))
async def list_webhooks(_: Admin, context: Context) -> Webhooks:
    """The oldest first, without secrets. There are 100 at most."""
    found = await context.stores.webhooks.read_webhooks()
    return Webhooks(webhooks=[WebhookAnswer.of(one) for one in found])


@router.post(
    "",
    status_code=201,
    summary="Add a webhook; the answer holds the secret",
    responses=problems(401, 403, 409, 413, 415),
    openapi_extra=json_request(
        NewWebhook,
        {
            "all events": {"url": "https://shop.example/doorstep"},
            "some": {
                "url": "https://shop.example/doorstep",
                "description": "the shop",
                "events": ["order.picked_up", "order.nearby", "order.delivered", "order.late"],
            },
            "for SMS": {
                "url": "https://sms.example/doorstep",
                "events": ["order.nearby", "order.delivered", "order.failed"],
                "with_contact": True,
            },
        },
    ),
)
async def add_webhook(
    response: Response,
    admin: Admin,
    context: Context,
    new: Annotated[NewWebhook, Depends(json_body(NewWebhook))],
) -> CreatedWebhook:
    """Events from now on are sent. The secret signs them (Standard Webhooks), and is shown once.
    `with_contact` allows this address the phone numbers of customers without web push."""
    secret = new_webhook_secret()
    webhook_id = await context.stores.webhooks.create_webhook(
        new.url, new.description, new.events, new.with_contact, secret, admin.actor_id
    )
    response.headers["Location"] = f"/webhooks/{webhook_id}"
    return await _with_secret(context, webhook_id, secret)


@router.get("/{webhook_id}", summary="One webhook", responses=problems(401, 403, 404))
async def read_webhook(webhook_id: UUID, _: Admin, context: Context) -> WebhookAnswer:
    """Without its secret."""
    return WebhookAnswer.of(await context.stores.webhooks.read_webhook(webhook_id))


@router.patch(
    "/{webhook_id}",
    summary="Change a webhook, or switch it on or off",
    responses=problems(401, 403, 404, 413, 415),
    openapi_extra=json_request(
        WebhookChange, {"off": {"is_on": False}, "all events": {"events": None}}
    ),
)
async def change_webhook(
    webhook_id: UUID,
    admin: Admin,
    context: Context,
    change: Annotated[WebhookChange, Depends(json_body(WebhookChange))],
) -> WebhookAnswer:
    """Only the given fields change; a new `url` without `with_contact` takes that back. Events of
    the time while it is off are not sent; deliveries that were pending before go on when it is on
    again."""
    await context.stores.webhooks.change_webhook(webhook_id, change.given(), admin.actor_id)
    return WebhookAnswer.of(await context.stores.webhooks.read_webhook(webhook_id))


@router.delete(
    "/{webhook_id}",
    status_code=204,
    summary="Delete a webhook with its deliveries",
    responses=problems(401, 403, 404),
)
async def delete_webhook(webhook_id: UUID, admin: Admin, context: Context) -> None:
    """Nothing more is sent, but an attempt that is under way."""
    await context.stores.webhooks.delete_webhook(webhook_id, admin.actor_id)


@router.post(
    "/{webhook_id}/rotate",
    summary="Replace the secret; the answer holds the new one",
    responses=problems(401, 403, 404),
)
async def rotate_webhook(webhook_id: UUID, admin: Admin, context: Context) -> CreatedWebhook:
    """For a day, messages have a signature by each."""
    secret = new_webhook_secret()
    await context.stores.webhooks.rotate_webhook(webhook_id, secret, admin.actor_id)
    return await _with_secret(context, webhook_id, secret)


@router.get(
    "/{webhook_id}/deliveries",
    summary="Deliveries of a webhook, the newest first",
    responses=problems(401, 403, 404),
)
async def list_deliveries(
    webhook_id: UUID,
    _: Admin,
    context: Context,
    outcome: Annotated[Outcome | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    before: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> Deliveries:
    """They are kept for 30 days after their end."""
    await context.stores.webhooks.read_webhook(webhook_id)
    found = await context.stores.webhooks.read_deliveries(
        webhook_id, outcome=outcome, before=before, limit=limit
    )
    return Deliveries(deliveries=[DeliveryAnswer.of(one) for one in found])


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/send",
    status_code=202,
    summary="Send a delivery again, with the same webhook-id",
    responses=problems(401, 403, 404),
)
async def send_again(
    webhook_id: UUID, delivery_id: DeliveryId, admin: Admin, context: Context
) -> None:
    """Outside the order's sequence: later events do not wait for it."""
    await context.stores.webhooks.send_again(webhook_id, delivery_id, admin.actor_id)


messages = APIRouter()


@messages.post(
    "order-event",
    tags=["webhooks"],
    summary="What a receiver gets: an event of an order",
    responses={410: {"description": "Switches the webhook off."}},
)
async def order_event(
    event: WebhookEvent,
    webhook_id: Annotated[str, Header(description="Of the event, in every attempt the same.")],
    webhook_timestamp: Annotated[int, Header(description="Of the attempt, in seconds.")],
    webhook_signature: Annotated[str, Header(description="v1,BASE64, one or two of them.")],
) -> None:
    """In the form of Standard Webhooks. Any answer but 2xx is tried again, for a day."""


async def _with_secret(context: AppContext, webhook_id: UUID, secret: str) -> CreatedWebhook:
    answer = WebhookAnswer.of(await context.stores.webhooks.read_webhook(webhook_id))
    return CreatedWebhook(**answer.model_dump(), secret=secret)
