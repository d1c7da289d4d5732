"""Orders as the API takes and returns them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from doorstep.fix import ID_PATTERN
from doorstep.http.instants import Instant
from doorstep.store.records import Order

Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
# documents what request_body.parse_json refuses: PostgreSQL stores no U+0000
NO_NUL: JsonDict = {"pattern": "^[^\\u0000]*$"}


class OrderState(StrEnum):
    """The states of an order, in their order; sql/README.md has the diagram."""

    CREATED = "created"
    CONFIRMED = "confirmed"
    ASSIGNED = "assigned"
    AT_RESTAURANT = "at_restaurant"
    PICKED_UP = "picked_up"
    ARRIVING = "arriving"
    AT_CUSTOMER = "at_customer"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Coordinates(BaseModel):
    """A place, WGS 84."""

    lon_deg: Longitude
    lat_deg: Latitude


class DriverChoice(BaseModel):
    """The driver to assign: a named one, or (absent) the nearest available one; if there is none,
    of those with room for another order the one with the least detour."""

    model_config = ConfigDict(extra="forbid")

    driver_id: str | None = Field(default=None, pattern=f"^{ID_PATTERN}$")
    stop_no: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Where the new stop goes among the driver's; absent: the least detour.",
    )


class Cancellation(BaseModel):
    """Why an order is cancelled. The customer reads the reason that staff gives."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(default=None, max_length=500, json_schema_extra=NO_NUL)


class OrderAnswer(BaseModel):
    """An order's current values."""

    order_id: UUID
    state: OrderState
    assignment_no: int
    driver_id: str | None
    order_seq: int
    restaurant_id: int
    destination: Coordinates
    customer_name: str | None
    policy_id: int
    created_at: Instant
    assigned_at: Instant | None
    ended_at: Instant | None

    @classmethod
    def of(cls, order: Order) -> OrderAnswer:
        """Build the answer that staff gets."""
        return cls(**order_members(order))


class CreatedOrder(OrderAnswer):
    """A new order with its customer's token, which no later answer contains.

    Both are null in the answer to a repeat.
    """

    customer_token: str | None
    customer_link: str | None


class CustomersOrder(BaseModel):
    """What a customer sees of an order after their command."""

    order_id: UUID
    state: OrderState
    order_seq: int


class Link(BaseModel):
    """A customer's link and the token in it."""

    customer_token: str
    customer_link: str


def order_members(order: Order) -> dict[str, Any]:
    """Return the members of an OrderAnswer."""
    return {
        "order_id": order.order_id,
        "state": OrderState(order.state),
        "assignment_no": order.assignment_no,
        "driver_id": order.driver_id,
        "order_seq": order.order_seq,
        "restaurant_id": order.restaurant_id,
        "destination": Coordinates(lon_deg=order.lon_deg, lat_deg=order.lat_deg),
        "customer_name": order.customer_name,
        "policy_id": order.policy_id,
        "created_at": order.created_at,
        "assigned_at": order.assigned_at,
        "ended_at": order.ended_at,
    }
