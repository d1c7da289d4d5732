"""When a courier arrives at the restaurant. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from tracking_api.restaurant.queries import RestaurantOrder, RestaurantSession
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.visibility import Position, TrackedOrder

MINUTE_S = 60  # whole minutes, so that an arrival tells no more of the place than a page needs


def arrivals(
    orders: Iterable[RestaurantOrder],
    session: RestaurantSession,
    now: datetime,
    estimate: EstimateArrival,
) -> dict[str, datetime]:
    """Estimate the arrival at the restaurant by driver, in whole minutes, rounded up.

    A driver whose position may not be shown has none: their next stop is another customer's.
    """
    found: dict[str, datetime] = {}
    for order in orders:
        if order.driver_id is None or order.driver_id in found:
            continue
        eta = estimate(_ride(order, session, now)) if order.fix_at is not None else None
        if eta is not None:
            found[order.driver_id] = _whole_minute(eta.arrives_at)
    return found


def _ride(order: RestaurantOrder, session: RestaurantSession, now: datetime) -> TrackedOrder:
    """The ride to the restaurant as one to a door. Its estimate is not kept: `order_seq` is -1."""
    place = session.lon_deg, session.lat_deg
    position = None
    if order.fix_at is not None and order.lon_deg is not None and order.lat_deg is not None:
        position = Position(order.fix_at, order.fix_at, order.lon_deg, order.lat_deg)
    return TrackedOrder(
        now=now,
        order_id=order.order_id,
        state="picked_up",
        assignment_no=0,
        order_seq=-1,
        restaurant_name=session.restaurant_name,
        restaurant=place,
        destination=place,
        dwell_min_s=0.0,
        position=position,
        driver_id=order.driver_id,
        pace=order.pace,
        is_trail_omitted=True,
        city=session.city,
    )


def _whole_minute(at: datetime) -> datetime:
    seconds = math.ceil(at.timestamp() / MINUTE_S) * MINUTE_S
    return datetime.fromtimestamp(seconds, UTC)
