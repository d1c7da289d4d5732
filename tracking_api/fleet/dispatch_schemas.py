"""Dispatch's lists as the API returns them."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from doorstep.http.instants import Instant
from tracking_api.fleet.schemas import DriverState, Duty
from tracking_api.orders.schemas import OrderAnswer, OrderState


class DispatchOrder(OrderAnswer):
    """An open order with its group. `state_at`: when it entered its state.

    `due_at` is the end of the promised window, else the scheduled time, else `unpromised_min`
    minutes after it was created.
    """

    state_at: Instant
    group: Literal["waiting", "stuck", "under_way"]
    stuck: Literal["no_progress", "courier_lost"] | None
    due_at: Instant
    promised_to: Instant | None
    address: str | None
    external_id: str | None


class DispatchOrders(BaseModel):
    """Open orders, the soonest due first; `counts` covers all of them, by group."""

    at: Instant
    counts: dict[str, int]
    stuck_after_min: dict[str, int]
    unpromised_min: int
    allowed: dict[str, list[str]]
    orders: list[DispatchOrder]


class OrderFound(BaseModel):
    """An order that a search found, and its last courier."""

    order_id: UUID
    state: OrderState
    driver_id: str | None
    customer_name: str | None = None
    external_id: str | None = None
    address: str | None = None


class DriverFound(BaseModel):
    """A driver that a search found, and their newest position, if there is one.

    `is_returning`: takes a failed order back.
    """

    driver_id: str
    name: str | None
    state: DriverState
    duty: Duty
    order_id: UUID | None
    lon_deg: float | None
    lat_deg: float | None
    is_returning: bool


class SearchAnswer(BaseModel):
    """What a search found, the best match first."""

    drivers: list[DriverFound]
    orders: list[OrderFound]
