"""A restaurant's own orders in the database, which checks the token in each statement."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from doorstep.errors import Unauthenticated, UnknownOrder
from doorstep.store.deadline import fetch_all, fetch_one
from doorstep.store.pool import Pool
from sql import query

SQL_FILE = "queries/restaurants.sql"
ENDED_WITHIN_S = 2 * 3600.0  # ended orders stay on the page for so long
MAX_ORDERS = 300


class RestaurantSession(NamedTuple):
    """A member of a restaurant's staff, and the restaurant."""

    name: str
    restaurant_id: int
    restaurant_name: str
    city: str | None
    time_zone: str
    lon_deg: float
    lat_deg: float
    preparation_s: int | None


class RestaurantOrder(NamedTuple):
    """An order as its restaurant sees it.

    The courier's columns are null but between assignment and pick-up. `driver_id` and the place
    are for the estimate of the arrival, and part of no answer.
    """

    order_id: UUID
    state: str
    external_id: str | None
    customer_name: str | None
    items: str | None
    created_at: datetime
    ready_at: datetime | None
    scheduled_for: datetime | None
    promised_from: datetime | None
    promised_to: datetime | None
    picked_up_at: datetime | None
    ended_at: datetime | None
    courier_name: str | None
    assigned_at: datetime | None
    driver_id: str | None
    pace: float
    fix_at: datetime | None
    lon_deg: float | None
    lat_deg: float | None


class RestaurantStore(Protocol):
    """What a restaurant's token opens. Errors are DoorstepErrors."""

    async def find_restaurant_session(self, token_sha256: bytes) -> RestaurantSession | None: ...

    async def read_restaurant_orders(self, token_sha256: bytes) -> list[RestaurantOrder]: ...

    async def read_restaurant_order(
        self, token_sha256: bytes, order_id: UUID
    ) -> RestaurantOrder: ...

    async def confirm_as_restaurant(
        self, token_sha256: bytes, order_id: UUID, idempotency_key: str | None
    ) -> None: ...

    async def set_ready_at(
        self, token_sha256: bytes, order_id: UUID, ready_at: datetime
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class RestaurantQueries:
    """The RestaurantStore on PostgreSQL."""

    pool: Pool

    async def find_restaurant_session(self, token_sha256: bytes) -> RestaurantSession | None:
        """Look a token up. None if it is not one of a restaurant's staff."""
        statement = query("read_session", SQL_FILE)
        row = await fetch_one(self.pool, statement, {"token_sha256": token_sha256})
        return RestaurantSession(*row) if row is not None else None

    async def read_restaurant_orders(self, token_sha256: bytes) -> list[RestaurantOrder]:
        """Read the open orders, and those that have just ended. Raises Unauthenticated."""
        return await self._read(token_sha256, None)

    async def read_restaurant_order(self, token_sha256: bytes, order_id: UUID) -> RestaurantOrder:
        """Read one order. Raises Unauthenticated, UnknownOrder."""
        found = await self._read(token_sha256, order_id)
        if not found:
            raise UnknownOrder
        return found[0]

    async def confirm_as_restaurant(
        self, token_sha256: bytes, order_id: UUID, idempotency_key: str | None
    ) -> None:
        """Confirm an order. Raises Unauthenticated, UnknownOrder, IllegalTransition."""
        parameters = {
            "token_sha256": token_sha256,
            "order_id": order_id,
            "idempotency_key": idempotency_key,
        }
        await fetch_one(self.pool, query("confirm", SQL_FILE), parameters)

    async def set_ready_at(self, token_sha256: bytes, order_id: UUID, ready_at: datetime) -> None:
        """Set when the food is ready. Raises Unauthenticated, UnknownOrder, IllegalTransition."""
        parameters = {"token_sha256": token_sha256, "order_id": order_id, "ready_at": ready_at}
        await fetch_one(self.pool, query("set_ready", SQL_FILE), parameters)

    async def _read(self, token_sha256: bytes, order_id: UUID | None) -> list[RestaurantOrder]:
        parameters = {
            "token_sha256": token_sha256,
            "order_id": order_id,
            "ended_within_s": ENDED_WITHIN_S,
            "limit": MAX_ORDERS,
        }
        rows = await fetch_all(self.pool, query("read_orders", SQL_FILE), parameters)
        return [RestaurantOrder(*row) for row in rows]


async def authenticate(store: RestaurantStore, token_sha256: bytes) -> RestaurantSession:
    """Return whose token this is. Raises Unauthenticated for any that is not a restaurant's."""
    session = await store.find_restaurant_session(token_sha256)
    if session is None:
        raise Unauthenticated
    return session
