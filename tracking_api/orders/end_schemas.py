"""How orders end, as the API takes and returns it."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from doorstep.http.instants import Instant
from tracking_api.orders.schemas import NO_NUL, OrderAnswer


class HandOver(BaseModel):
    """How an order was handed over."""

    model_config = ConfigDict(extra="forbid")

    note: str | None = Field(default=None, min_length=1, max_length=500, json_schema_extra=NO_NUL)


class RetryOrder(BaseModel):
    """The order that tries a failed one again. The link is null in the answer to a repeat, and for
    a retry that a courier asked for: POST /orders/{order_id}/link makes one. A promised window that
    has passed begins now, as long as before, or 30 minutes if it had no length."""

    order_id: UUID
    customer_token: str | None
    customer_link: str | None
    promised_from: Instant | None
    promised_to: Instant | None


class FailedOrder(OrderAnswer):
    """An order that has failed, and its retry if there is one."""

    retry: RetryOrder | None


class ReturnAnswer(BaseModel):
    """The way of a failed order back to its restaurant."""

    order_id: UUID
    driver_id: str
    started_at: Instant
    ended_at: Instant | None


class OpenReturnAnswer(BaseModel):
    """A failed order on its way back."""

    order_id: UUID
    driver_id: str
    started_at: Instant
    restaurant_id: int
    restaurant_name: str
    driver_state: str


class OpenReturns(BaseModel):
    """The orders on their way back, the first one first."""

    returns: list[OpenReturnAnswer]


class ImportedRow(BaseModel):
    """The order of one line. The link is shown once."""

    line: int
    external_id: str
    order_id: UUID
    customer_link: str


class ImportedOrders(BaseModel):
    """What an import did, or would do: `orders` are the created ones."""

    dry_run: bool
    created: int
    unchanged: int
    orders: list[ImportedRow]
