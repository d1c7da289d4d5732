"""Answers of the administration's routes. The bodies are in `doorstep.administration.fields`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from doorstep.administration.fields import Vehicle
from doorstep.administration.opening_hours import OpeningSpan
from doorstep.http.instants import Instant


class _Page(BaseModel):
    next_cursor: str | None = Field(description="Null on the last page.")


class DriverRow(BaseModel):
    """A driver as admins set them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "driver_id": "anna",
                    "name": "Anna",
                    "vehicle": "cargo_bike",
                    "phone": "+39 055 1234567",
                    "created_at": "2026-11-29T08:00:00.000Z",
                    "retired_at": None,
                }
            ]
        }
    )

    driver_id: str
    name: str
    vehicle: Vehicle | None
    phone: str | None
    created_at: Instant
    retired_at: Instant | None


class Drivers(_Page):
    """A page of drivers, by id."""

    drivers: list[DriverRow]


class CreatedDriver(DriverRow):
    """A new driver, with the secrets of their device. They are shown once."""

    mqtt_password: str = Field(description="For MQTT. The user name is the id.")
    token: str = Field(description="The bearer token for driver_api.")


class RestaurantRow(BaseModel):
    """A place where orders are picked up."""

    restaurant_id: int
    name: str
    address: str | None
    lat_deg: float
    lon_deg: float
    phone: str | None
    opening_hours: list[OpeningSpan] | None
    preparation_s: int | None
    city: str | None = Field(description="The service area around it.")
    retired_at: Instant | None


class Restaurants(_Page):
    """A page of restaurants, by id."""

    restaurants: list[RestaurantRow]


class AreaRow(BaseModel):
    """A service area: a box in degrees, with west above east across ±180°."""

    name: str
    west: float
    south: float
    east: float
    north: float
    time_zone: str
    retired_at: Instant | None


class Areas(_Page):
    """A page of service areas, by name."""

    service_areas: list[AreaRow]


class PolicyRow(BaseModel):
    """A policy: radii and times."""

    policy_id: int
    name: str
    enter_radius_m: float
    dwell_min_s: float
    dwell_max_s: float
    dwell_spread_m: float
    dwell_max_mps: float
    leave_radius_m: float
    leave_min_s: float
    leave_max_s: float
    arriving_radius_m: float
    arriving_min_s: float
    worst_accuracy_m: float
    report_every_s: float
    pace: float
    offer_s: float
    auto_offer: bool
    nearby_m: float | None
    nearby_s: float | None
    created_at: Instant
    is_default: bool = Field(description="Whether orders that name no policy get this one.")
    retired_at: Instant | None


class Policies(_Page):
    """A page of policies, by id."""

    policies: list[PolicyRow]


class ReplacedPolicy(PolicyRow):
    """The new policy in place of a changed one."""

    replaces: int = Field(description="The policy that was changed: it is retired now.")


class DriverSecrets(BaseModel):
    """The secrets of a new driver's device. They are shown once."""

    driver_id: str
    mqtt_password: str
    token: str | None


class ImportAnswer(BaseModel):
    """What an import did, or with `dry_run` would have done."""

    dry_run: bool
    created: list[Any] = Field(description="Ids or names; in a dry run they are not final.")
    changed: list[Any] = Field(description="Ids or names; of policies those of the new rows.")
    unchanged: int = Field(description="Rows that say what is stored already.")
    secrets: list[DriverSecrets] = Field(description="Of new drivers. Empty in a dry run.")
