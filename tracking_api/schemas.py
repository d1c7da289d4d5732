"""What tracking_api takes and gives, as it stands in OpenAPI."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from doorstep.fix import ID_PATTERN
from doorstep.http.instants import Instant
from doorstep.sampling import MAX_HEARTBEAT_S, Mode
from doorstep.store.records import Order
from tracking_api.track.visibility import Presence

Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
# a JSON string may hold what no text may: strict_json refuses it
NO_NUL: JsonDict = {"pattern": "^[^\\u0000]*$"}


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


class NewOrder(BaseModel):
    """An order to be created. `policy_id` pins other radii and times than policy 1's."""

    model_config = ConfigDict(extra="forbid")

    restaurant_id: int = Field(ge=-(2**31), lt=2**31)
    destination: Coordinates
    customer_name: str | None = Field(default=None, max_length=200, json_schema_extra=NO_NUL)
    policy_id: int | None = Field(default=None, ge=1, lt=2**31)


class DriverChoice(BaseModel):
    """Whom to assign: a named driver, or (absent) the nearest one available."""

    model_config = ConfigDict(extra="forbid")

    driver_id: str | None = Field(default=None, pattern=f"^{ID_PATTERN}$")


class Cancellation(BaseModel):
    """Why an order is cancelled. For the log only."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(default=None, max_length=500, json_schema_extra=NO_NUL)


class LinkToken(BaseModel):
    """The token of a customer's link."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(min_length=1, max_length=200, json_schema_extra=NO_NUL)


Metres = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Pace = Annotated[float, Field(ge=0.1, le=100, allow_inf_nan=False)]
MetresPerSecond = Annotated[float, Field(gt=0, le=500, allow_inf_nan=False)]


class NewPolicy(BaseModel):
    """Radii and times of another city, or of a demo; what is left out is as in policy 1.

    Policies are only ever added: an order keeps the one it was created with.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, json_schema_extra=NO_NUL)
    enter_radius_m: Metres | None = None
    dwell_min_s: Seconds | None = None
    dwell_max_s: Seconds | None = None
    dwell_spread_m: Metres | None = None
    dwell_max_mps: MetresPerSecond | None = None
    leave_radius_m: Metres | None = None
    leave_min_s: Seconds | None = None
    leave_max_s: Seconds | None = None
    arriving_radius_m: Metres | None = None
    arriving_min_s: Seconds | None = None
    worst_accuracy_m: Metres | None = None
    report_every_s: Seconds | None = None
    pace: Pace | None = None


UpTo30S = Annotated[float, Field(ge=0, le=MAX_HEARTBEAT_S, allow_inf_nan=False)]
Heartbeat = Annotated[float, Field(ge=1, le=MAX_HEARTBEAT_S, allow_inf_nan=False)]
ReportingMetres = Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)]


class Reporting(BaseModel):
    """How a driver's device reports its fixes; what is left out is as every device begins.

    `mode` says which fixes go out: all of them, one in `every_s`, one each `distance_m`, one after
    moving further than both fixes' accuracies, or (`dead_reckoning`) one when the place predicted
    from the last one is off by more than `off_by_m`. Whatever the mode, one goes out within
    `heartbeat_s`, and of those in between one in `keep_every_s` goes along with it. With `batch_s`
    a fix waits so long for others.
    """

    model_config = ConfigDict(extra="forbid")

    mode: Mode = "all"
    every_s: Heartbeat = 4.0
    distance_m: ReportingMetres = 30.0
    off_by_m: ReportingMetres = 25.0
    heartbeat_s: Heartbeat = MAX_HEARTBEAT_S
    keep_every_s: UpTo30S = 4.0
    batch_s: UpTo30S = 0.0


class ReportingAnswer(Reporting):
    """How a driver's device is to report. `set_at` is null as long as nobody has set it.

    `delivered`: the broker keeps the command for the device, which gets it at once or when it is
    next online.
    """

    driver_id: str
    set_at: Instant | None
    delivered: bool


class PolicyId(BaseModel):
    """The new policy's id."""

    policy_id: int


class Policies(BaseModel):
    """Every policy, with the columns of the table."""

    policies: list[dict[str, Any]]


class OrderAnswer(BaseModel):
    """An order as it stands."""

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
        """Show an order to staff."""
        return cls(**order_members(order))


class CreatedOrder(OrderAnswer):
    """A new order, with its customer's token: the only time it is shown."""

    customer_token: str
    customer_link: str


class CustomersOrder(BaseModel):
    """What a customer sees of an order after a command of theirs."""

    order_id: UUID
    state: OrderState
    order_seq: int


class Link(BaseModel):
    """A customer's link and the token in it."""

    customer_token: str
    customer_link: str


class Orders(BaseModel):
    """A page of orders, the newest first. `next_cursor` is null on the last page."""

    orders: list[OrderAnswer]
    next_cursor: str | None


class DispatchOrder(OrderAnswer):
    """An open order, and how much it needs a dispatcher. `state_at`: since when it stands so."""

    state_at: Instant
    group: Literal["waiting", "stuck", "under_way"]
    stuck: Literal["no_progress", "courier_lost"] | None


class DispatchOrders(BaseModel):
    """Open orders, those that need somebody first; `counts` is of all of them, by group."""

    at: Instant
    counts: dict[str, int]
    stuck_after_min: dict[str, int]
    allowed: dict[str, list[str]]
    orders: list[DispatchOrder]


class OrderFound(BaseModel):
    """An order that a search found, and its last courier."""

    order_id: UUID
    state: OrderState
    driver_id: str | None


class DriverFound(BaseModel):
    """A driver that a search found, and where they are, if that is known."""

    driver_id: str
    name: str | None
    state: DriverState
    duty: Duty
    order_id: UUID | None
    lon_deg: float | None
    lat_deg: float | None


class SearchAnswer(BaseModel):
    """What a search found, the likeliest first."""

    drivers: list[DriverFound]
    orders: list[OrderFound]


class DriverHistory(BaseModel):
    """A page of a driver's fixes, packed. `next_cursor` is null on the last page."""

    driver_id: str
    columns: list[str]
    fixes: list[list[Any]]
    next_cursor: str | None


class FleetHistory(BaseModel):
    """Where many drivers were, packed; `more`: others were left out."""

    step_s: float
    driver_ids: list[str]
    more: bool
    columns: list[str]
    fixes: list[list[Any]]


class PointGeometry(BaseModel):
    """A GeoJSON point: longitude, latitude."""

    type: Literal["Point"] = "Point"
    coordinates: tuple[float, float]


class PositionProperties(BaseModel):
    """When and how well the position was taken, and how far it can be trusted now."""

    fix_at: Instant
    received_at: Instant
    accuracy_m: float | None
    speed_mps: float | None
    heading_deg: float | None
    age_s: float
    freshness: Literal["live", "recent", "stale", "lost"]


class PositionFeature(BaseModel):
    """A driver's position as a GeoJSON feature."""

    type: Literal["Feature"] = "Feature"
    geometry: PointGeometry
    properties: PositionProperties


class EtaAnswer(BaseModel):
    """An estimate, and what it rests on. Four of five arrivals lie between `p10_at` and `p90_at`.

    `route`: by the street graph, or as the crow flies, stretched. `speeds`: learned from past
    rides, observed of this driver in the last minutes, or assumed. `as_of`: the fix it begins with.
    """

    arrives_at: Instant
    p10_at: Instant
    p90_at: Instant
    as_of: Instant
    seconds: int
    distance_m: int
    speed_mps: float
    route: Literal["road", "straight_line"]
    speeds: Literal["learned", "observed", "assumed"]
    basis: str


class Restaurant(Coordinates):
    """Where the order comes from."""

    name: str


class EventAnswer(BaseModel):
    """One step of the order. `source`: gps (what fixes prove), or who said so."""

    order_seq: int
    state: OrderState
    source: str
    occurred_at: Instant


class TrackAnswer(BaseModel):
    """Where is my order? `position` only while a driver is under way with it."""

    order_id: UUID
    state: OrderState
    assignment_no: int
    order_seq: int
    position: PositionFeature | None
    eta: EtaAnswer | None
    restaurant: Restaurant
    destination: Coordinates
    events: list[EventAnswer]


class RestaurantAnswer(Restaurant):
    """A restaurant with its id."""

    restaurant_id: int


class Restaurants(BaseModel):
    """Every restaurant."""

    restaurants: list[RestaurantAnswer]


class DriverAnswer(BaseModel):
    """A driver as staff sees them: duty, state, open order and newest position."""

    driver_id: str
    name: str | None
    duty: str
    state: str
    order_id: UUID | None
    position: PositionFeature | None
    battery: float | None
    presence: Presence


class NearDriver(BaseModel):
    """An available driver and how far away they are, in a straight line."""

    driver_id: str
    distance_m: float
    position: PositionFeature


class NearDrivers(BaseModel):
    """The nearest available drivers, the nearest first."""

    drivers: list[NearDriver]


class DriverPositions(BaseModel):
    """Every driver's newest position, packed: `columns` names what each row holds."""

    at_ms: int
    columns: list[str]
    drivers: list[list[Any]]


def order_members(order: Order) -> dict[str, Any]:
    """The members of an OrderAnswer."""
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
