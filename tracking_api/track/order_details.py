"""What an answer holds of an order besides the position, kept for a few seconds.

It changes only with the order's events: the number of the newest one comes from the database with
every read. The instants of events are an exception (late fixes may prove an earlier one), so the
details are read again after MAX_AGE_S.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import msgspec

from tracking_api.track.visibility import Event, Notices, OrderPlan

MAX_AGE_S = 4.0  # below the 5 s within which everything shown is current
MAX_ORDERS = 20_000  # of about 1.5 KB


class OrderEnds(msgspec.Struct, frozen=True):
    """What a customer reads of the order's end: customer_order__ends."""

    pin: str | None = None
    ended_reason: str | None = None
    photo: bool = False


class OrderDetails(msgspec.Struct, frozen=True, array_like=True):
    """An order, its restaurant, policy, open assignment and events: customer_order__details."""

    state: str
    assignment_no: int
    order_seq: int
    restaurant_name: str
    restaurant_lon_deg: float
    restaurant_lat_deg: float
    lon_deg: float
    lat_deg: float
    dwell_min_s: float
    pace: float
    assigned_at: datetime | None
    events: list[Event]
    city: str | None = None
    ends: OrderEnds = OrderEnds()
    plan: OrderPlan | None = None
    notices: Notices | None = None


class DetailsCache:
    """The details of the orders read most recently."""

    def __init__(
        self,
        max_age_s: float = MAX_AGE_S,
        max_orders: int = MAX_ORDERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_age_s = max_age_s
        self._max_orders = max_orders
        self._clock = clock
        self._held: OrderedDict[UUID, tuple[float, OrderDetails]] = OrderedDict()  # oldest first

    def get(self, order_id: UUID) -> OrderDetails | None:
        """Return an order's details if they are fresh."""
        held = self._held.get(order_id)
        if held is None or self._clock() - held[0] > self._max_age_s:
            return None
        return held[1]

    def put(self, order_id: UUID, details: OrderDetails) -> None:
        """Keep details that were just read."""
        self._held.pop(order_id, None)
        self._held[order_id] = self._clock(), details
        if len(self._held) > self._max_orders:
            self._held.popitem(last=False)
