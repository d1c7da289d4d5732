"""What dispatchers read to decide: ranked couriers, timelines, states of then, restaurants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from doorstep.store.deadline import fetch_all
from doorstep.store.pool import Pool
from sql import query

SQL_FILE = "queries/dispatch.sql"


class CourierChoice(NamedTuple):
    """A courier who may take an order, as of `now`. `distance_m` is a straight line."""

    now: datetime
    driver_id: str
    name: str
    vehicle: str | None
    distance_m: float
    battery: float | None
    open_orders: int
    is_current: bool
    pickup_lon_deg: float
    pickup_lat_deg: float
    city: str | None
    lon_deg: float
    lat_deg: float
    fix_at: datetime
    received_at: datetime
    speed_mps: float | None
    is_returning: bool = False


class TimelineEntry(NamedTuple):
    """One thing that happened to an order, and who did it."""

    occurred_at: datetime
    recorded_at: datetime
    kind: str
    what: str
    actor: str | None
    who: str | None
    driver_id: str | None
    reason: str | None
    note: str | None


class FoundRestaurant(NamedTuple):
    """A restaurant that a search found."""

    restaurant_id: int
    name: str
    address: str | None
    lon_deg: float
    lat_deg: float


class DecisionStore(Protocol):
    """What dispatchers read to decide. Errors are DoorstepErrors."""

    async def read_couriers(self, order_id: UUID, limit: int) -> list[CourierChoice]: ...

    async def read_timeline(self, order_id: UUID) -> list[TimelineEntry]: ...

    async def read_driver_states(
        self, driver_ids: Sequence[str], from_at: datetime, to_at: datetime
    ) -> list[tuple[str, int, str]]: ...

    async def find_restaurants(
        self, text: str, city: str | None, limit: int
    ) -> list[FoundRestaurant]: ...


@dataclass(frozen=True, slots=True)
class DecisionQueries:
    """The DecisionStore on PostgreSQL."""

    pool: Pool

    async def read_couriers(self, order_id: UUID, limit: int) -> list[CourierChoice]:
        """Read the nearest couriers who may take an order. Raises UnknownOrder."""
        statement = query("read_order_couriers", SQL_FILE)
        parameters = {"order_id": order_id, "limit": limit}
        return [CourierChoice(*row) for row in await fetch_all(self.pool, statement, parameters)]

    async def read_timeline(self, order_id: UUID) -> list[TimelineEntry]:
        """Read what happened to an order, the earliest first. Raises UnknownOrder."""
        statement = query("read_order_timeline", SQL_FILE)
        rows = await fetch_all(self.pool, statement, {"order_id": order_id})
        return [TimelineEntry(*row) for row in rows]

    async def read_driver_states(
        self, driver_ids: Sequence[str], from_at: datetime, to_at: datetime
    ) -> list[tuple[str, int, str]]:
        """Read when drivers entered which state: driver, epoch ms, state; by driver and time."""
        statement = query("read_driver_states", SQL_FILE)
        parameters = {"driver_ids": list(driver_ids), "from_at": from_at, "to_at": to_at}
        rows = await fetch_all(self.pool, statement, parameters)
        return [(driver_id, entered_at_ms, state) for driver_id, entered_at_ms, state in rows]

    async def find_restaurants(
        self, text: str, city: str | None, limit: int
    ) -> list[FoundRestaurant]:
        """Find restaurants by a part of their name, those that begin with it first."""
        statement = query("find_restaurants", SQL_FILE)
        parameters = {"text": text, "city": city, "limit": limit}
        return [FoundRestaurant(*row) for row in await fetch_all(self.pool, statement, parameters)]
