"""A day's report as the API returns it."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, Field

from doorstep.http.instants import Instant
from tracking_api.reports.queries import RestaurantFigures


class Stage(StrEnum):
    """A part of an order's time, in the order of the database's arrays."""

    CONFIRM = "confirm"  # created -> confirmed
    ASSIGN = "assign"  # confirmed -> assigned, for the first time
    TO_RESTAURANT = "to_restaurant"  # assigned, for the last time -> at_restaurant
    AT_RESTAURANT = "at_restaurant"  # at_restaurant -> picked_up
    TO_CUSTOMER = "to_customer"  # picked_up -> at_customer, or delivered
    AT_CUSTOMER = "at_customer"  # at_customer -> delivered
    WHOLE = "whole"  # created -> delivered


class StageTimes(BaseModel):
    """How long a stage took, of the orders that have passed it: median and 90th percentile."""

    stage: Stage
    orders: int
    p50_s: float | None
    p90_s: float | None


class Promise(BaseModel):
    """Deliveries against the promised windows."""

    delivered: int = Field(description="Delivered orders with a promised window.")
    early: int
    in_window: int
    late: int
    late_p50_s: float | None = Field(description="Of the late ones, after the window's end.")
    late_max_s: float | None
    open_late: int = Field(description="Open orders whose window has ended.")


class Figures(BaseModel):
    """Orders that were created on the day, and what became of them."""

    orders: int
    open: int
    delivered: int
    cancelled: int
    failed: int
    promise: Promise
    stages: list[StageTimes]

    @classmethod
    def of(cls, found: RestaurantFigures, **more: object) -> Self:
        """Build the answer."""
        columns = zip(Stage, found.stage_orders, found.stage_p50_s, found.stage_p90_s, strict=True)
        values = {name: getattr(found, name) for name in _COUNTS}
        promise = {name: getattr(found, name) for name in _PROMISE}
        return cls.model_validate(
            {
                **values,
                **more,
                "promise": {"delivered": found.promised, **promise},
                "stages": [
                    {"stage": stage, "orders": orders, "p50_s": p50_s, "p90_s": p90_s}
                    for stage, orders, p50_s, p90_s in columns
                ],
            }
        )


_COUNTS = ("orders", "open", "delivered", "cancelled", "failed")
_PROMISE = ("early", "in_window", "late", "late_p50_s", "late_max_s", "open_late")


class RestaurantReport(Figures):
    """A restaurant's figures."""

    restaurant_id: int
    name: str


class ReasonCount(BaseModel):
    """How many orders failed or were cancelled, by whom and for which reason, if one was given."""

    restaurant_id: int
    state: str
    by: str
    reason: str | None
    orders: int


class DriverReport(BaseModel):
    """A driver who had orders of the day. `distance_km` is of the whole day."""

    driver_id: str
    name: str
    assignments: int
    delivered: int
    failed: int
    cancelled: int
    given_up: int = Field(description="Declined, or given to another driver.")
    distance_km: float = Field(
        description="Through places 20 s apart: short bends are cut, and rests count nothing."
    )


class DayReport(BaseModel):
    """A local day of a city."""

    city: str
    date: date
    time_zone: str
    from_at: Instant
    to_at: Instant
    read_at: Instant
    total: Figures
    restaurants: list[RestaurantReport]
    reasons: list[ReasonCount]
    drivers: list[DriverReport]
    more_drivers: bool = Field(description="More than 2,000 drivers: the others are left out.")
