"""A restaurant's own orders as the API takes and returns them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from doorstep.http.instants import Instant, QueryInstant
from tracking_api.restaurant.queries import RestaurantOrder, RestaurantSession


class RestaurantOrderState(StrEnum):
    """The states of an order as far as they concern its restaurant."""

    CREATED = "created"
    CONFIRMED = "confirmed"
    ASSIGNED = "assigned"
    AT_RESTAURANT = "at_restaurant"
    PICKED_UP = "picked_up"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    FAILED = "failed"


class ExpectedCourier(BaseModel):
    """The courier who comes for an order. Null before the assignment, and from the pick-up on."""

    name: str
    is_here: bool
    arrives_at: Instant | None = Field(
        description="In whole minutes. Null: here already, or another stop comes first, or the "
        "position is not known."
    )


class OwnOrder(BaseModel):
    """An order of the restaurant."""

    order_id: UUID
    state: RestaurantOrderState
    external_id: str | None
    customer_name: str | None
    items: str | None
    created_at: Instant
    ready_at: Instant | None
    scheduled_for: Instant | None
    promised_from: Instant | None
    promised_to: Instant | None
    picked_up_at: Instant | None
    ended_at: Instant | None
    courier: ExpectedCourier | None

    @classmethod
    def of(cls, order: RestaurantOrder, arrivals: dict[str, datetime]) -> OwnOrder:
        """Build the answer."""
        courier = None
        if order.driver_id is not None:
            is_here = order.state == RestaurantOrderState.AT_RESTAURANT
            courier = ExpectedCourier(
                name=order.courier_name or "",
                is_here=is_here,
                arrives_at=None if is_here else arrivals.get(order.driver_id),
            )
        values = {name: getattr(order, name) for name in cls.model_fields if name != "courier"}
        return cls(**values, courier=courier)


class OwnRestaurant(BaseModel):
    """The restaurant that the session is of."""

    restaurant_id: int
    name: str
    time_zone: str
    preparation_s: int | None

    @classmethod
    def of(cls, session: RestaurantSession) -> OwnRestaurant:
        """Build the answer."""
        return cls(
            restaurant_id=session.restaurant_id,
            name=session.restaurant_name,
            time_zone=session.time_zone,
            preparation_s=session.preparation_s,
        )


class OwnOrders(BaseModel):
    """The restaurant's open orders, then those that have just ended."""

    now: Instant
    restaurant: OwnRestaurant
    orders: list[OwnOrder]


class Readiness(BaseModel):
    """When the food is ready."""

    model_config = ConfigDict(extra="forbid")

    ready_at: QueryInstant = Field(description="At most a day from now.")


class Confirmation(BaseModel):
    """A confirmation, and perhaps when the food is ready."""

    model_config = ConfigDict(extra="forbid")

    ready_at: QueryInstant | None = Field(default=None, description="At most a day from now.")
