"""What an answer holds of an order besides the position, kept for a few seconds.

It changes with the order's events: the number of the newest one comes from the database with every
read. What else may change it (late fixes may prove an earlier instant of an event, the restaurant
may be renamed) is in a digest, `stamp`, which is compared after MAX_AGE_S. An order that has ended
has none, and is read again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from tracking_api.track.visibility import FINAL_STATES, Event, Notices, OrderPlan

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


class HeldDetails(NamedTuple):
    """The details of an order, their digest, and whether they are shown without comparing it."""

    details: OrderDetails
    stamp: int
    is_fresh: bool


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
        # the oldest first
        self._held: OrderedDict[UUID, tuple[float, OrderDetails, int]] = OrderedDict()

    def get(self, order_id: UUID) -> HeldDetails | None:
        """Return an order's details, unless they are old and of an order that has ended."""
        held = self._held.get(order_id)
        if held is None:
            return None
        read_s, details, stamp = held
        is_fresh = self._clock() - read_s <= self._max_age_s
        if not is_fresh and details.state in FINAL_STATES:
            return None
        return HeldDetails(details, stamp, is_fresh)

    def put(self, order_id: UUID, details: OrderDetails, stamp: int) -> None:
        """Keep details that were just read, or compared."""
        self._held.pop(order_id, None)
        self._held[order_id] = self._clock(), details, stamp
        if len(self._held) > self._max_orders:
            self._held.popitem(last=False)
