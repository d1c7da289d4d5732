"""The ETA before a courier can be seen: preparation, a usual pick-up, then the ride. Pure.

It starts from the newest event, so that it stays as it is from request to request. A courier who
does not come moves it on in steps of 30 s. The lead times are usual ones, and the band is broad.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from tracking_api.track import straight_eta
from tracking_api.track.straight_eta import Eta
from tracking_api.track.visibility import OrderPlan, TrackedOrder

PREPARATION_S = 900.0  # of a restaurant that has stated none
HANDOVER_S = 120.0
TICK_S = 30.0
# From the newest event to the courier's arrival at the restaurant: usually, and at the very least
# from now on.
TO_PICK_UP_S = {"created": 720.0, "confirmed": 600.0, "assigned": 420.0, "at_restaurant": 0.0}
AT_LEAST_S = {"created": 240.0, "confirmed": 240.0, "assigned": 120.0, "at_restaurant": 0.0}
EARLIER_SHARE, LATER_SHARE = 0.3, 0.6  # of the time up to the pick-up: a guess
P10_RATIO, P90_RATIO = 0.65, 1.6


class EarlyRide(NamedTuple):
    """A ride from the restaurant to the door, in real seconds: the median and the band."""

    seconds: float
    p10_s: float
    p90_s: float
    metres: float
    is_by_road: bool = False
    is_learned: bool = False


def is_early(order: TrackedOrder) -> bool:
    """Whether this estimate is to be used: no courier can be seen, and none has the food."""
    return order.position is None and order.plan is not None and order.state in TO_PICK_UP_S


def straight_ride(order: TrackedOrder) -> EarlyRide:
    """Return a ride along the stretched straight line, at a usual pace."""
    usual_s, metres = straight_eta.straight_ride(order.restaurant, order.destination)
    seconds = usual_s / order.pace
    return EarlyRide(seconds, seconds * P10_RATIO, seconds * P90_RATIO, metres)


def leaves_at(order: TrackedOrder, plan: OrderPlan) -> tuple[datetime, datetime]:
    """Return the newest event's instant, and when the food is expected to leave the restaurant."""

    def usual(seconds: float) -> timedelta:
        return timedelta(seconds=seconds / order.pace)

    since = order.events[-1].occurred_at if order.events else plan.created_at
    preparation = plan.preparation_s if plan.preparation_s is not None else PREPARATION_S
    ready_at = plan.ready_at or plan.created_at + usual(preparation)
    tick = datetime.fromtimestamp(order.now.timestamp() // TICK_S * TICK_S, order.now.tzinfo)
    courier_at = since + usual(TO_PICK_UP_S[order.state])
    at_least = tick + usual(AT_LEAST_S[order.state])
    return since, max(ready_at, courier_at, at_least) + usual(HANDOVER_S)


def estimate_early(order: TrackedOrder, plan: OrderPlan, ride: EarlyRide) -> Eta:
    """Estimate the arrival of an order whose courier cannot be seen yet."""
    since, leaves = leaves_at(order, plan)
    spread_s = max(0.0, (leaves - since).total_seconds())
    arrives_at = leaves + timedelta(seconds=ride.seconds)
    early = arrives_at - timedelta(seconds=EARLIER_SHARE * spread_s + ride.seconds - ride.p10_s)
    late = arrives_at + timedelta(seconds=LATER_SHARE * spread_s + ride.p90_s - ride.seconds)
    if plan.scheduled_for is not None and plan.scheduled_for > arrives_at:
        moved = plan.scheduled_for - arrives_at
        arrives_at, early, late = arrives_at + moved, early + moved, late + moved
    return Eta(
        arrives_at=max(arrives_at, order.now),
        p10_at=min(max(early, since), arrives_at),
        p90_at=late,
        as_of=since,
        seconds=max(0, round((arrives_at - order.now).total_seconds())),
        distance_m=round(ride.metres),
        speed_mps=round(ride.metres / max(ride.seconds, 1.0), 2),
        route="road" if ride.is_by_road else "straight_line",
        speeds="learned" if ride.is_learned else "assumed",
        basis="usual times of preparation and pick-up, then the ride from the restaurant",
    )
