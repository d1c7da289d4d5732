"""The fields of what admins set. A `…Change` has every field optional: it sets the given ones only.

The same models validate the bodies of the API and the rows of a CSV file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from doorstep.administration.opening_hours import OpeningSpan
from doorstep.fix.value import ID_PATTERN
from doorstep.password_file import FORGOTTEN, SERVICE_USERS

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]
PolicyName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$")]
Address = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")]
Phone = Annotated[str, Field(pattern=r"^\+?[0-9][0-9 ()/.-]{2,30}$", examples=["+39 055 1234567"])]
Vehicle = Literal["bicycle", "cargo_bike", "moped", "car", "van", "foot"]
Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
RestaurantId = Annotated[int, Field(ge=-(2**31), lt=2**31)]
AreaName = Annotated[str, Field(pattern=f"^{ID_PATTERN}$", examples=["helsinki"])]


def _check_is_free(value: str) -> str:
    if value in SERVICE_USERS or value == FORGOTTEN:
        raise ValueError("this name is reserved")
    return value


NewDeviceId = Annotated[str, Field(pattern=f"^{ID_PATTERN}$"), AfterValidator(_check_is_free)]
"""The id of a driver or source to add, which is also its MQTT user name."""

Metres = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Pace = Annotated[float, Field(ge=0.1, le=100, allow_inf_nan=False)]
MetresPerSecond = Annotated[float, Field(gt=0, le=500, allow_inf_nan=False)]


_ABSENT: Any = None  # not validated, and not among `given()`


def _check_time_zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("no name of a time zone")
    return value


TimeZone = Annotated[
    str, Field(max_length=64), AfterValidator(_check_time_zone), Field(examples=["Europe/Rome"])
]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def given(self) -> dict[str, Any]:
        """Return the fields that were given, as JSON values."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class DriverChange(_Fields):
    """A driver's name, vehicle and phone. Only the given ones change."""

    name: Name = Field(default=_ABSENT, description="What customers read: a first name.")
    vehicle: Vehicle | None = None
    phone: Phone | None = None


class NewDriver(DriverChange):
    """A driver to add. The id is also the MQTT user name; without a name, it is the name, too."""

    id: NewDeviceId


class RestaurantChange(_Fields):
    """A place where orders are picked up. Only the given fields change."""

    name: Name = _ABSENT
    address: Address | None = None
    lat_deg: Latitude = _ABSENT
    lon_deg: Longitude = _ABSENT
    phone: Phone | None = None
    opening_hours: Annotated[list[OpeningSpan], Field(max_length=50)] | None = Field(
        default=None, description="In local time, for people to read: orders do not check it."
    )
    preparation_s: Annotated[int, Field(ge=0, le=86_400)] | None = Field(
        default=None, description="From confirmation to pick-up, as a rule."
    )


class NewRestaurant(RestaurantChange):
    """A restaurant to add. The answer has its id."""

    name: Name
    lat_deg: Latitude
    lon_deg: Longitude


class AreaChange(_Fields):
    """The box of a service area, in degrees, and its time zone. Only the given fields change.

    A box that crosses ±180° has its west above its east.
    """

    west: Longitude = _ABSENT
    south: Latitude = _ABSENT
    east: Longitude = _ABSENT
    north: Latitude = _ABSENT
    time_zone: TimeZone = _ABSENT


class NewArea(AreaChange):
    """A service area to add. Without a time zone, its times are in UTC."""

    name: AreaName
    west: Longitude
    south: Latitude
    east: Longitude
    north: Latitude


class PolicyChange(_Fields):
    """Radii and times. Only the given ones differ from those of the policy that is changed."""

    name: PolicyName = _ABSENT
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
    offer_s: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] | None = None
    auto_offer: bool | None = None
    nearby_m: Annotated[float, Field(ge=1, le=10_000, allow_inf_nan=False)] | None = None
    nearby_s: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] | None = None

    def given(self) -> dict[str, Any]:
        """Return the values that are not null: a policy has all of them."""
        return self.model_dump(exclude_none=True)


class NewPolicy(PolicyChange):
    """Radii and times of another city, or of a demo; absent values are those of policy 1.

    Policies are append-only: an order keeps the one it was created with.
    """

    name: PolicyName
