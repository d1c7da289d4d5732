"""Offers in the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from doorstep.errors import StoreUnavailable
from doorstep.store.deadline import fetch_all, fetch_one
from doorstep.store.pool import Pool
from doorstep.store.records import Offer
from sql import query

SQL_FILE = "queries/offers.sql"


class Unassigned(NamedTuple):
    """A confirmed order whose offers have ended."""

    order_id: UUID
    since: datetime
    offered_count: int


class OfferStore(Protocol):
    """Offers of orders to drivers. Errors are DoorstepErrors."""

    async def offer_order(
        self, order_id: UUID, driver_id: str | None, name: str, idempotency_key: str | None
    ) -> Offer: ...

    async def read_offers(self, order_id: UUID) -> list[Offer]: ...

    async def read_unassigned(self, limit: int) -> list[Unassigned]: ...


@dataclass(frozen=True, slots=True)
class OfferQueries:
    """The OfferStore on PostgreSQL."""

    pool: Pool

    async def offer_order(
        self, order_id: UUID, driver_id: str | None, name: str, idempotency_key: str | None
    ) -> Offer:
        """Offer an order to a driver, or (None) to the next one who was not offered it.

        Raises UnknownOrder, IllegalTransition, OfferOpen, UnknownDriver, DriverUnavailable,
        NoDriverAvailable, IdempotencyConflict.
        """
        parameters = {
            "order_id": order_id,
            "driver_id": driver_id,
            "name": name,
            "idempotency_key": idempotency_key,
        }
        row = await fetch_one(self.pool, query("offer_order", SQL_FILE), parameters)
        if row is None:
            raise StoreUnavailable("the database returned no row")
        return Offer(*row)

    async def read_offers(self, order_id: UUID) -> list[Offer]:
        """Read an order's offers, the oldest first; none for an unknown order."""
        statement = query("read_offers", SQL_FILE)
        rows = await fetch_all(self.pool, statement, {"order_id": order_id})
        return [Offer(*row) for row in rows]

    async def read_unassigned(self, limit: int) -> list[Unassigned]:
        """Read confirmed orders whose offers have ended, the longest waiting first."""
        rows = await fetch_all(self.pool, query("read_unassigned", SQL_FILE), {"limit": limit})
        return [Unassigned(*row) for row in rows]
