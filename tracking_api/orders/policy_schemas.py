"""Policies as the API takes and returns them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tracking_api.orders.schemas import NO_NUL

Metres = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Pace = Annotated[float, Field(ge=0.1, le=100, allow_inf_nan=False)]
MetresPerSecond = Annotated[float, Field(gt=0, le=500, allow_inf_nan=False)]


class NewPolicy(BaseModel):
    """Radii and times of another city, or of a demo; absent values are those of policy 1.

    Policies are append-only: an order keeps the one it was created with.
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
    offer_s: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] | None = None
    auto_offer: bool | None = None


class PolicyId(BaseModel):
    """The new policy's id."""

    policy_id: int


class Policies(BaseModel):
    """Every policy, with the columns of the table."""

    policies: list[dict[str, Any]]
