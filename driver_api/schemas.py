"""What driver_api takes and returns. Fixes are decoded by `doorstep.fix`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from doorstep.fix import ID_PATTERN, MAX_FIXES, MAX_SEQ
from doorstep.fix.instants import MAX_EPOCH_MS, MIN_EPOCH_MS
from doorstep.fix.strict import OPTIONAL
from doorstep.http.failure_body import FailureReason, NextStep
from doorstep.http.instants import Instant

FIX_EXAMPLE: dict[str, Any] = {
    "boot": "b1",
    "seq": 42,
    "fix_at": "2026-11-21T12:00:00.000Z",
    "lat_deg": 43.7731,
    "lon_deg": 11.256,
    "accuracy_m": 8.0,
    "speed_mps": 4.2,
    "heading_deg": 270.0,
}


def _as_decoded(schema: dict[str, Any]) -> None:
    """Describe what `doorstep.fix` decodes.

    An optional field is absent or ignored, so any value of it is valid; boot and seq come together.
    """
    for field in schema["properties"].values():
        field.pop("default", None)
    for name in OPTIONAL:
        field = schema["properties"][name]
        least, most = field.pop("minimum"), field.pop("maximum")
        del field["type"]
        field["description"] = f"A number from {least:g} to {most:g}; anything else is ignored."
    schema["properties"]["fix_at"] = {
        "description": "The phone's clock: RFC 3339 with a zone, or milliseconds since 1970.",
        "anyOf": [
            {"type": "string", "format": "date-time"},
            {"type": "number", "minimum": MIN_EPOCH_MS, "maximum": MAX_EPOCH_MS},
        ],
    }
    schema["dependentRequired"] = {"boot": ["seq"], "seq": ["boot"]}


Absent = SkipJsonSchema[None]


class FixBody(BaseModel):
    """One fix. `boot` and `seq` belong together: both or neither. Unknown fields are ignored."""

    model_config = ConfigDict(json_schema_extra=_as_decoded)

    fix_at: str | float
    lat_deg: float = Field(ge=-90, le=90)
    lon_deg: float = Field(ge=-180, le=180)
    accuracy_m: Annotated[float, Field(ge=0, le=1e6)] | Absent = None
    speed_mps: Annotated[float, Field(ge=0, le=500)] | Absent = None
    heading_deg: Annotated[float, Field(ge=0, le=360)] | Absent = None
    altitude_m: Annotated[float, Field(ge=-1000, le=20_000)] | Absent = None
    battery: Annotated[float, Field(ge=0, le=1)] | Absent = None
    boot: Annotated[str, Field(pattern=f"^{ID_PATTERN}$")] | Absent = None
    seq: Annotated[int, Field(ge=1, le=MAX_SEQ)] | Absent = None


class FixesBody(BaseModel):
    """Up to 256 fixes, such as a phone sends after an outage."""

    fixes: list[FixBody] = Field(min_length=1, max_length=MAX_FIXES)


Ignored = Annotated[
    tuple[str, ...],
    Field(description="Optional fields that were not usable; the fix is kept without them."),
]


class RecordedFix(BaseModel):
    """The fix is settled. `quarantined`: stored, but no evidence is derived from it. `dropped`: it
    was taken off duty and is not kept.
    """

    driver_id: str
    outcome: Literal["committed", "duplicate", "quarantined", "dropped"]
    reason: str | None
    fix_at: Instant
    received_at: Instant
    ignored: Ignored = ()


class FixOutcome(BaseModel):
    """The outcome of fix `n` of the request, counted from 0."""

    n: int
    outcome: Literal["committed", "duplicate", "quarantined", "dropped", "rejected", "conflict"]
    reason: str | None
    ignored: Ignored = ()


class RecordedFixes(BaseModel):
    """Each fix's outcome, in their order, and the count of each outcome."""

    driver_id: str
    received_at: Instant
    outcomes: list[FixOutcome]
    committed: int
    duplicate: int
    quarantined: int
    dropped: int
    rejected: int
    conflict: int


class DutyAnswer(BaseModel):
    """A driver's duty, and the state derived from it and the open order."""

    driver_id: str
    duty: str
    state: str


class Place(BaseModel):
    """A place to go to."""

    lon_deg: float
    lat_deg: float
    name: str | None = None


class PickupPlace(Place):
    """Where to pick an order up."""

    address: str | None = None
    phone: str | None = None


class Customer(BaseModel):
    """What the courier sees of the customer, while the order is assigned.

    `phone` is null unless the order's `contact_rule` (none, call, text, any) allows a contact.
    """

    name: str | None = None
    phone: str | None = None
    contact_rule: Literal["none", "call", "text", "any"] = "none"
    address: str | None = None
    note: str | None = None


class CurrentOrderAnswer(BaseModel):
    """The driver's order of the next stop."""

    order_id: UUID
    state: str
    assignment_no: int
    assigned_at: Instant
    restaurant: PickupPlace
    destination: Place
    customer: Customer = Customer()
    items: str | None = None
    ready_at: Instant | None = None
    promised_from: Instant | None = None
    promised_to: Instant | None = None
    has_pin: bool = Field(default=False, description="Whether `delivered` needs a PIN.")


class ReturningOrder(BaseModel):
    """A failed order on its way back to the restaurant."""

    order_id: UUID
    started_at: Instant
    restaurant: PickupPlace
    items: str | None = None


class StopAnswer(CurrentOrderAnswer):
    """One of the driver's open orders. `stop_no` 1 is the next customer's stop."""

    stop_no: int


class OfferedOrder(BaseModel):
    """An order that the driver may accept until `expires_at`.

    `pickup_distance_m` is from the newest position, in a straight line; null without one.
    """

    order_id: UUID
    restaurant: Place
    pickup_distance_m: float | None
    offered_at: Instant
    expires_at: Instant


class DriverAnswer(DutyAnswer):
    """A driver's duty, state, open orders, open offers, and the orders to take back.

    `order` is the first of `orders`.
    """

    order: CurrentOrderAnswer | None
    orders: list[StopAnswer] = []
    offers: list[OfferedOrder] = []
    returns: list[ReturningOrder] = []
    failure_reasons: list[FailureReason] = list(FailureReason)
    next_steps: list[NextStep] = list(NextStep)


class Delivery(BaseModel):
    """How an order was handed over: the customer's PIN, if the order has one, and a note."""

    model_config = ConfigDict(extra="forbid")

    pin: Annotated[str | None, Field(pattern="^[0-9]{1,8}$")] = None
    note: str | None = Field(
        default=None, max_length=500, json_schema_extra={"pattern": "^[^\\u0000]*$"}
    )


class StoredPhoto(BaseModel):
    """A photo that was stored, without its metadata."""

    order_id: UUID
    media_type: str
    bytes: int
    stored_at: Instant


class ReturnedOrder(BaseModel):
    """A failed order that is back at its restaurant."""

    order_id: UUID
    driver_id: str
    started_at: Instant
    ended_at: Instant


class DeclinedOffer(BaseModel):
    """An offer after the driver has declined it."""

    order_id: UUID
    outcome: Literal["declined"]
    ended_at: Instant


class OrderAnswer(BaseModel):
    """An order after a driver's command."""

    order_id: UUID
    state: str
    assignment_no: int
    order_seq: int
    driver_id: str | None


class DriverTokenBody(BaseModel):
    """A driver's token to sign in with."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(min_length=1, max_length=200)


class CourierSession(BaseModel):
    """Who is signed in on the courier's page."""

    driver_id: str
    name: str | None


class PhoneUse(StrEnum):
    """What a phone is set up with."""

    BROWSER = "browser"
    OWNTRACKS = "owntracks"
    TRACCAR = "traccar"


class InvitationBody(BaseModel):
    """An invitation, and what to set the phone up with."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(min_length=1, max_length=200)
    app: PhoneUse


class OwnTracksSetup(BaseModel):
    """Links that configure OwnTracks."""

    http_link: str = Field(description="An answer means committed.")
    mqtt_link: str


class TraccarSetup(BaseModel):
    """What configures Traccar Client."""

    link: str
    qr_svg: str
    url: str
    device_id: str


class JoinAnswer(BaseModel):
    """The phone that an invitation has set up. The secrets are shown once."""

    driver_id: str
    name: str
    follow_token: str = Field(description="Tells whether a position has come, for a day.")
    owntracks: OwnTracksSetup | None
    traccar: TraccarSetup | None


class PositionSeen(BaseModel):
    """Whether a position has come since the invitation was used."""

    has_position: bool
