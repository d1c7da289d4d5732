"""Positions, estimates and the answer to "where is my order?" as the API returns them."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from doorstep.http.instants import Instant
from tracking_api.orders.schemas import NO_NUL, Coordinates, OrderState


class LinkToken(BaseModel):
    """The token of a customer's link."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(min_length=1, max_length=200, json_schema_extra=NO_NUL)


class PointGeometry(BaseModel):
    """A GeoJSON point: longitude, latitude."""

    type: Literal["Point"] = "Point"
    coordinates: tuple[float, float]


class LineGeometry(BaseModel):
    """A GeoJSON line of at most 200 points: longitude, latitude."""

    type: Literal["LineString"] = "LineString"
    coordinates: list[tuple[float, float]]


class PositionProperties(BaseModel):
    """The fix's instants and accuracy, and its age now."""

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
    """An estimate and its basis. Four of five arrivals lie between `p10_at` and `p90_at`.

    `route`: by the street graph, or the stretched straight line. `speeds`: learned from past
    rides, observed of this driver in the last minutes, or assumed. `as_of`: the fix that the
    estimate starts from.
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


class CoarseEta(BaseModel):
    """When the customer is reached after another delivery, in multiples of 5 minutes."""

    earliest_at: Instant
    latest_at: Instant


class Restaurant(Coordinates):
    """Where the order comes from."""

    name: str


class EventAnswer(BaseModel):
    """One state change of the order. `source`: gps (proved by fixes), or the actor."""

    order_seq: int
    state: OrderState
    source: str
    occurred_at: Instant


class TrackAnswer(BaseModel):
    """Where is my order? `position` is null unless a driver is under way with it.

    While the driver has another delivery first, `other_delivery_first` is true, `position` is null
    and `eta` has two instants only.

    `city` is the restaurant's, null outside all of them; its map is /tiles/{city}.pmtiles. `route`
    is the way ahead that the estimate is of, from the position along the streets; null without
    one. `pin` is for the customer alone, until the order ends. `ended_reason` is what staff wrote
    of a cancellation, or one of the reasons of failures. `photo`: whether GET …/photo has one. A
    shared link (`is_shared`) shows no places.
    `late_by_s`: by how much the promised window is missed, 0 while that is only expected, null
    otherwise. `nearby_at`: since when the courier is nearby, null before.
    """

    order_id: UUID
    state: OrderState
    assignment_no: int
    order_seq: int
    city: str | None
    late_by_s: int | None
    nearby_at: Instant | None
    position: PositionFeature | None
    eta: EtaAnswer | CoarseEta | None
    route: LineGeometry | None
    other_delivery_first: bool
    restaurant: Restaurant | None
    destination: Coordinates | None
    events: list[EventAnswer]
    is_shared: bool
    pin: str | None = None
    ended_reason: str | None = None
    photo: bool = False
