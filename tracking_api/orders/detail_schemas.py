"""Orders with details: the customer, the address, the times, any pickup place."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from doorstep.http.failure_body import Failure
from doorstep.http.instants import Instant, QueryInstant
from doorstep.store.records import DetailedOrder
from tracking_api.orders.schemas import (
    NO_NUL,
    Coordinates,
    Latitude,
    Longitude,
    OrderAnswer,
    order_members,
)

ShortText = Annotated[str, Field(min_length=1, max_length=200, json_schema_extra=NO_NUL)]
LongText = Annotated[str, Field(min_length=1, max_length=2000, json_schema_extra=NO_NUL)]
Phone = Annotated[str, Field(pattern=r"^\+?[0-9][0-9 ()./-]{2,39}$", examples=["+39 055 123456"])]


class ContactRule(StrEnum):
    """How the courier may reach the customer; with `none`, the courier sees no phone number."""

    NONE = "none"
    CALL = "call"
    TEXT = "text"
    ANY = "any"


class Pickup(BaseModel):
    """A pickup place of one order, instead of a restaurant."""

    model_config = ConfigDict(extra="forbid")

    name: ShortText
    lon_deg: Longitude
    lat_deg: Latitude
    address: ShortText | None = None
    phone: Phone | None = None


class NewOrder(BaseModel):
    """An order to be created, from a restaurant or another `pickup` place.

    `external_id` is unique among the orders that one member of staff creates. `policy_id` pins a
    policy other than policy 1. With the `pin` `auto`, four digits are drawn. Its customer reads
    the PIN, and the courier needs it to deliver.
    """

    model_config = ConfigDict(extra="forbid")

    restaurant_id: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    pickup: Pickup | None = None
    destination: Coordinates
    policy_id: int | None = Field(default=None, ge=1, lt=2**31)
    customer_name: str | None = Field(default=None, max_length=200, json_schema_extra=NO_NUL)
    external_id: ShortText | None = None
    customer_phone: Phone | None = None
    customer_language: Annotated[
        str | None, Field(pattern="^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)
    ] = None
    contact_rule: ContactRule | None = None
    address: ShortText | None = None
    door_note: LongText | None = None
    items: LongText | None = None
    ready_at: QueryInstant | None = None
    scheduled_for: QueryInstant | None = None
    promised_from: QueryInstant | None = None
    promised_to: QueryInstant | None = None
    pin: Annotated[str | None, Field(pattern="^([0-9]{4,8}|auto)$")] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.restaurant_id is None) == (self.pickup is None):
            raise ValueError("either restaurant_id or pickup")
        if self.promised_from and self.promised_to and self.promised_to < self.promised_from:
            raise ValueError("promised_to is before promised_from")
        return self

    def details(self) -> dict[str, Any]:
        """Return the members of the database's type `order_details` that are given."""
        return self.model_dump(
            mode="json",
            exclude_none=True,
            exclude={"restaurant_id", "pickup", "destination", "policy_id", "customer_name"},
        )


class OrderDetail(OrderAnswer):
    """An order with its details. `pickup` is null for a restaurant, `failure` without a reason."""

    external_id: str | None
    customer_phone: str | None
    customer_language: str | None
    contact_rule: ContactRule
    address: str | None
    door_note: str | None
    items: str | None
    ready_at: Instant | None
    scheduled_for: Instant | None
    promised_from: Instant | None
    promised_to: Instant | None
    has_pin: bool
    pickup: Pickup | None
    failure: Failure | None

    @classmethod
    def with_details(cls, found: DetailedOrder) -> Self:
        """Build the answer that staff gets."""
        return cls(**order_members(found.order), **found.details)


class OneAssignment(BaseModel):
    """An attempt to deliver an order: who had it, and the command that ended it."""

    driver_id: str
    assigned_at: Instant
    ended_at: Instant | None
    ended_by: str | None


class DeliveryDetail(BaseModel):
    """Who delivered, and how. `pin`: whether the right PIN was given; null without a PIN."""

    by: Literal["staff", "driver"]
    note: str | None
    pin: bool | None


class CancellationDetail(BaseModel):
    """Who cancelled, and the reason that the customer reads."""

    by: Literal["staff", "customer"]
    reason: str | None


class ReturnDetail(BaseModel):
    """The way back to the restaurant; `ended_by` is the driver or a member of staff."""

    driver_id: str
    started_at: Instant
    ended_at: Instant | None
    ended_by: str | None


class WholeOrder(OrderDetail):
    """An order with its assignments, the first one first. `driver_id` is null once it has ended.

    `retry_of` is the failed order that this one tries again, `retry_order_id` the next attempt.
    """

    assignments: list[OneAssignment]
    delivery: DeliveryDetail | None = None
    cancellation: CancellationDetail | None = None
    has_photo: bool = False
    retry_of: UUID | None = None
    retry_order_id: UUID | None = None
    return_leg: Annotated[ReturnDetail | None, Field(validation_alias="return")] = None


class Orders(BaseModel):
    """A page of orders, the newest first. `next_cursor` is null on the last page."""

    orders: list[OrderDetail]
    next_cursor: str | None
