"""Webhooks as admins send them and as the API returns them."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from doorstep.http.instants import Instant
from tracking_api.orders.schemas import NO_NUL, OrderState
from tracking_api.webhooks.queries import LoggedDelivery, Webhook

EventType = Literal[
    "order.created",
    "order.confirmed",
    "order.assigned",
    "order.at_restaurant",
    "order.picked_up",
    "order.arriving",
    "order.at_customer",
    "order.delivered",
    "order.cancelled",
    "order.failed",
    "order.late",
    "order.nearby",
]
Outcome = Literal["pending", "delivered", "failed"]
_URL = re.compile(r"https?://[\x21-\x7e]+")


def _receiver(url: str) -> str:
    """Check what can be checked without resolving the name; `webhooks` does the rest."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise ValueError("not a URL") from exc
    if not _URL.fullmatch(url) or not host:
        raise ValueError("must be an https URL of ASCII characters")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("must have no user, password or fragment")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError("http is for loopback only: use https")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


Url = Annotated[
    str,
    Field(max_length=2000, json_schema_extra={"format": "uri"}),
    AfterValidator(_receiver),
]
Description = Annotated[str, Field(max_length=200, json_schema_extra=NO_NUL)]
Events = Annotated[list[EventType], Field(min_length=1, max_length=12)]


class NewWebhook(BaseModel):
    """An address to send events to. `events`: all, if absent or null. `with_contact`: it may have
    phone numbers of customers."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    description: Description = ""
    events: Events | None = None
    with_contact: bool = False


class WebhookChange(BaseModel):
    """What to change; only the given fields do. `events: null` chooses all."""

    model_config = ConfigDict(extra="forbid")

    url: Url = ""
    description: Description | None = None
    events: Events | None = None
    with_contact: bool = False
    is_on: bool = True

    def given(self) -> dict[str, Any]:
        """Return the fields that were sent."""
        given = self.model_dump(include=self.model_fields_set)
        if "description" in given:
            given["description"] = given["description"] or ""
        return given


class WebhookAnswer(BaseModel):
    """An address that is sent events; `events` is null for all of them.

    `off_reason`: `admin`; `failing`, no success for a day; or `gone`, an answer of 410. `pending`:
    deliveries that wait.
    """

    webhook_id: UUID
    url: str
    description: str
    events: list[EventType] | None
    is_on: bool
    off_reason: Literal["admin", "failing", "gone"] | None
    off_at: Instant | None
    failing_since: Instant | None
    last_success_at: Instant | None
    created_at: Instant
    created_by: str
    with_contact: bool
    pending: int

    @classmethod
    def of(cls, webhook: Webhook) -> Self:
        """Return a webhook as the API does."""
        return cls(**webhook._asdict())


class CreatedWebhook(WebhookAnswer):
    """A webhook with the secret that signs its messages. It is shown once."""

    secret: str


class Webhooks(BaseModel):
    """All webhooks, the oldest first."""

    webhooks: list[WebhookAnswer]


class DeliveryAnswer(BaseModel):
    """An event for a webhook. `due_at`: when it is tried next; null when it has ended, or while an
    earlier event of the order is pending. `last_status`: of HTTP, null without an answer."""

    delivery_id: int
    order_id: UUID
    order_seq: int
    event_type: str
    created_at: Instant
    attempts: int
    last_attempt_at: Instant | None
    last_status: int | None
    last_error: str | None
    due_at: Instant | None
    ended_at: Instant | None
    outcome: Outcome

    @classmethod
    def of(cls, delivery: LoggedDelivery) -> Self:
        """Return a delivery as the API does."""
        return cls(**delivery._asdict())


class Deliveries(BaseModel):
    """A page, the newest first. `before=` the last `delivery_id` leads to the next."""

    deliveries: list[DeliveryAnswer]


class CustomerContact(BaseModel):
    """A customer without web push, for an SMS or the like: `text` is in the `language`."""

    phone: str
    language: str
    text: str


class EventData(BaseModel):
    """What an event says of its order: what staff may see, without position and customer.

    `order_seq` counts up in an order. `reason`: why it failed, or what staff wrote of a
    cancellation. `contact` is absent but for `nearby`, `delivered` and `failed`, to a webhook
    `with_contact`.
    """

    order_id: UUID
    external_id: str | None
    order_seq: int
    state: OrderState
    at: Instant
    reason: str | None
    contact: CustomerContact | None = None


class WebhookEvent(BaseModel):
    """The body of a message to a receiver, which answers 2xx within 10 s."""

    type: EventType
    timestamp: Instant
    data: EventData
