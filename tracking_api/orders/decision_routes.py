"""What dispatchers decide by: couriers ranked for an order, and its timeline."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel

from doorstep.http.instants import Instant
from doorstep.http.openapi import problems
from tracking_api.context import AppContext, Context, Staff
from tracking_api.fleet.presence import Presence, presence_of
from tracking_api.orders.decision_queries import CourierChoice
from tracking_api.orders.schemas import Coordinates
from tracking_api.track.straight_eta import straight_ride

router = APIRouter(prefix="/orders/{order_id}", tags=["orders"])


class RankedCourier(BaseModel):
    """A courier who may take the order. `pickup_s`: the ride to its pickup place.

    `route` says what it is based on: the streets, or a straight line. `open_orders` are delivered
    first, and not part of `pickup_s`. `is_returning`: takes a failed order back.
    """

    driver_id: str
    name: str
    vehicle: str | None
    pickup_s: int
    distance_m: int
    route: Literal["road", "straight_line"]
    open_orders: int
    battery: float | None
    presence: Presence
    age_s: float
    place: Coordinates
    is_current: bool
    is_returning: bool


class RankedCouriers(BaseModel):
    """Couriers, the best first: fewest open orders among equal minutes, where a way back counts as
    one. The current one is last."""

    couriers: list[RankedCourier]


class TimelineAnswer(BaseModel):
    """One thing that happened. `who` is a member of staff, a driver or `customer`; null: GPS or the
    policy. `what` is a command, a state that GPS proved, an offer's outcome, or a link's change."""

    occurred_at: Instant
    recorded_at: Instant
    kind: Literal["command", "evidence", "offer", "link", "return"]
    what: str
    actor: Literal["staff", "driver", "customer"] | None
    who: str | None
    driver_id: str | None
    reason: str | None
    note: str | None


class Timeline(BaseModel):
    """What happened to an order, the earliest first."""

    entries: list[TimelineAnswer]


@router.get(
    "/couriers", summary="Couriers who may take an order, ranked", responses=problems(401, 403, 404)
)
async def list_couriers(
    order_id: UUID, _: Staff, context: Context, limit: Annotated[int, Query(ge=1, le=50)] = 8
) -> RankedCouriers:
    """On duty, with a position of the last 5 minutes and room for another order."""
    found = await context.stores.decisions.read_couriers(order_id, limit)
    ranked = sorted((_ranked(context, one) for one in found), key=_rank)
    return RankedCouriers(couriers=ranked)


@router.get(
    "/timeline",
    summary="What happened to an order, and who did it",
    responses=problems(401, 403, 404),
)
async def read_timeline(order_id: UUID, _: Staff, context: Context) -> Timeline:
    """Commands, what GPS proved, offers, and changes of the customer's link."""
    found = await context.stores.decisions.read_timeline(order_id)
    return Timeline(
        entries=[TimelineAnswer.model_validate(one, from_attributes=True) for one in found]
    )


def _ranked(context: AppContext, courier: CourierChoice) -> RankedCourier:
    start = courier.lon_deg, courier.lat_deg
    pickup = courier.pickup_lon_deg, courier.pickup_lat_deg
    ride = context.ride(courier.city, start, pickup, courier.now)
    seconds, metres = ride or straight_ride(start, pickup)
    silent_s = _age_s(courier.received_at, courier.now)
    return RankedCourier(
        driver_id=courier.driver_id,
        name=courier.name,
        vehicle=courier.vehicle,
        pickup_s=round(seconds),
        distance_m=round(metres),
        route="road" if ride else "straight_line",
        open_orders=courier.open_orders,
        battery=courier.battery,
        presence=presence_of(silent_s, courier.speed_mps),
        age_s=round(_age_s(courier.fix_at, courier.now), 1),
        place=Coordinates(lon_deg=start[0], lat_deg=start[1]),
        is_current=courier.is_current,
        is_returning=courier.is_returning,
    )


def _rank(courier: RankedCourier) -> tuple[bool, int, int, str]:
    minutes = courier.pickup_s // 60
    errands = courier.open_orders + courier.is_returning
    return courier.is_current, minutes, errands, courier.driver_id


def _age_s(instant: datetime, now: datetime) -> float:
    return max(0.0, (now - instant).total_seconds())
