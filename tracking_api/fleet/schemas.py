"""Drivers as the API takes and returns them."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from doorstep.administration.fields import Vehicle
from doorstep.http.instants import Instant
from doorstep.sampling import MAX_HEARTBEAT_S, Demand, Mode
from tracking_api.fleet.presence import Presence
from tracking_api.orders.schemas import Coordinates, OrderState
from tracking_api.track.schemas import PositionFeature, Restaurant

Duty = Literal["off_duty", "on_duty", "on_break"]
DriverState = Literal[
    "off_duty",
    "available",
    "to_restaurant",
    "at_restaurant",
    "to_customer",
    "at_customer",
    "on_break",
]

UpTo30S = Annotated[float, Field(ge=0, le=MAX_HEARTBEAT_S, allow_inf_nan=False)]
Heartbeat = Annotated[float, Field(ge=1, le=MAX_HEARTBEAT_S, allow_inf_nan=False)]
SamplingMetres = Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)]


class SamplingSettings(BaseModel):
    """How a driver's device samples its fixes; absent values are a device's defaults.

    `mode` selects the fixes that are sent: all of them, one per `every_s`, one per `distance_m`,
    one after moving further than both fixes' accuracies, or (`dead_reckoning`) one when the place
    predicted from the last one is off by more than `off_by_m`. In every mode, one is sent within
    `heartbeat_s`, and of those in between one per `keep_every_s` is sent along. With `batch_s` a
    fix waits that long for others.
    """

    model_config = ConfigDict(extra="forbid")

    mode: Mode = "all"
    every_s: Heartbeat = 4.0
    distance_m: SamplingMetres = 30.0
    off_by_m: SamplingMetres = 25.0
    heartbeat_s: Heartbeat = MAX_HEARTBEAT_S
    keep_every_s: UpTo30S = 4.0
    batch_s: UpTo30S = 0.0


class SamplingAnswer(SamplingSettings):
    """The sampling of a driver's device. `set_at` is null for the defaults.

    `delivered`: the broker retains the command for the device, which gets it at once or when it is
    next online. `demand` chose the settings; null if staff pinned them, or for the defaults.
    """

    driver_id: str
    set_at: Instant | None
    delivered: bool
    demand: Demand | None


class DriverPhoneAnswer(BaseModel):
    """A driver's phone app, and when it was last heard of, to 20 s."""

    state: Literal["invited", "heard"] = Field(description="`invited`: never heard of.")
    invited_until: Instant | None = Field(description="While an invitation is open.")
    heard_at: Instant | None
    app: str | None = Field(description="With the version that it names.")


class DriverStopAnswer(BaseModel):
    """An open order of a driver. `stop_no` 1 is the next customer's stop."""

    order_id: UUID
    stop_no: int
    state: OrderState
    assigned_at: Instant
    restaurant: Restaurant
    destination: Coordinates
    customer_name: str | None


class DriverStops(BaseModel):
    """A driver's open orders, the next stop first."""

    orders: list[DriverStopAnswer]


class StopSequence(BaseModel):
    """A driver's open orders in the sequence in which customers are to be served."""

    model_config = ConfigDict(extra="forbid")

    order_ids: list[UUID] = Field(max_length=100)


class DriverAnswer(BaseModel):
    """A driver as staff sees them: duty, state, open orders and newest position.

    `order_id` is the first of `orders`. `is_returning`: takes a failed order back.
    """

    driver_id: str
    name: str | None
    duty: str
    state: str
    order_id: UUID | None
    is_returning: bool
    position: PositionFeature | None
    battery: float | None
    presence: Presence
    vehicle: Vehicle | None
    phone: str | None
    retired_at: Instant | None
    phone_app: DriverPhoneAnswer | None
    orders: list[DriverStopAnswer]


class NearDriver(BaseModel):
    """A driver who may take an order, and the straight-line distance to them.

    `is_returning`: takes a failed order back, and is available meanwhile.
    """

    driver_id: str
    distance_m: float
    position: PositionFeature
    open_orders: int
    is_returning: bool


class NearDrivers(BaseModel):
    """Drivers who may take an order, the nearest first."""

    drivers: list[NearDriver]


class DriverPositions(BaseModel):
    """Every driver's newest position, packed: `columns` names the values of each row."""

    at_ms: int
    columns: list[str]
    drivers: list[list[Any]]
