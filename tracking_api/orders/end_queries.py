"""How orders end, in the database, for staff: and orders from a CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, NamedTuple, Protocol
from uuid import UUID

from psycopg import AsyncConnection

from doorstep.errors import UnknownOrder
from doorstep.photos import Photo
from doorstep.store import commands
from doorstep.store.deadline import fetch_all, fetch_one, run_transaction
from doorstep.store.pool import Pool
from doorstep.store.records import Order
from sql import query
from tracking_api.orders.imports import CreateOrder, ImportedOrder, NumberedOrder, apply_orders

SQL_FILE: LiteralString = "queries/orders.sql"
IMPORT_WITHIN_S = 40.0  # 1,000 orders take about 5 s


class Failed(NamedTuple):
    """An order that has failed, its retry if there is one, and whether this request made it."""

    order: Order
    retry_order_id: UUID | None
    is_new: bool
    retry_promised_from: datetime | None = None
    retry_promised_to: datetime | None = None


class OrderReturn(NamedTuple):
    """The way of a failed order back to its restaurant."""

    order_id: UUID
    driver_id: str
    started_at: datetime
    ended_at: datetime | None


class OpenReturn(NamedTuple):
    """A failed order on its way back."""

    order_id: UUID
    driver_id: str
    started_at: datetime
    restaurant_id: int
    restaurant_name: str
    driver_state: str


class OrderEndStore(Protocol):
    """How orders end. Errors are DoorstepErrors."""

    async def end_order(
        self,
        order_id: UUID,
        command: str,
        name: str,
        note: str | None,
        idempotency_key: str | None,
    ) -> Order: ...

    async def fail_order(
        self,
        order_id: UUID,
        name: str,
        *,
        reason: str | None,
        note: str | None,
        next_step: str | None,
        token_sha256: bytes,
        idempotency_key: str | None,
    ) -> Failed: ...

    async def read_photo(self, order_id: UUID) -> Photo | None: ...

    async def end_return(self, order_id: UUID, name: str) -> OrderReturn: ...

    async def list_returns(self, limit: int) -> list[OpenReturn]: ...

    async def import_orders(
        self, orders: Sequence[NumberedOrder], who: str, *, dry_run: bool
    ) -> list[ImportedOrder]: ...


@dataclass(frozen=True, slots=True)
class OrderEndQueries:
    """The OrderEndStore on PostgreSQL."""

    pool: Pool

    async def end_order(
        self,
        order_id: UUID,
        command: str,
        name: str,
        note: str | None,
        idempotency_key: str | None,
    ) -> Order:
        """Deliver or cancel as the member of staff of this name. The customer reads the note of a
        cancellation. Raises UnknownOrder, IllegalTransition, IdempotencyConflict."""
        parameters = {
            "order_id": order_id,
            "command": command,
            "name": name,
            "note": note,
            "idempotency_key": idempotency_key,
        }
        return Order(*await self._one("end_order", parameters))

    async def fail_order(
        self,
        order_id: UUID,
        name: str,
        *,
        reason: str | None,
        note: str | None,
        next_step: str | None,
        token_sha256: bytes,
        idempotency_key: str | None,
    ) -> Failed:
        """Fail an order, perhaps for a reason, as the member of staff of this name.

        The token becomes that of a retry's customer, unless this repeats an earlier request.
        Raises UnknownOrder, IllegalTransition, IdempotencyConflict.
        """
        parameters = {
            "order_id": order_id,
            "name": name,
            "reason": reason,
            "note": note,
            "next_step": next_step,
            "token_sha256": token_sha256,
            "idempotency_key": idempotency_key,
        }
        row = await self._one("fail_order", parameters)
        return Failed(Order(*row[:-4]), *row[-4:])

    async def read_photo(self, order_id: UUID) -> Photo | None:
        """Read an order's photo. None without one."""
        row = await fetch_one(self.pool, query("read_photo", SQL_FILE), {"order_id": order_id})
        return Photo(*row) if row else None

    async def end_return(self, order_id: UUID, name: str) -> OrderReturn:
        """End the way back of a failed order. Raises UnknownOrder if it has none."""
        return OrderReturn(*await self._one("end_return", {"order_id": order_id, "name": name}))

    async def list_returns(self, limit: int) -> list[OpenReturn]:
        """List the orders on their way back, the first one first."""
        rows = await fetch_all(self.pool, query("read_open_returns", SQL_FILE), {"limit": limit})
        return [OpenReturn(*row) for row in rows]

    async def import_orders(
        self, orders: Sequence[NumberedOrder], who: str, *, dry_run: bool
    ) -> list[ImportedOrder]:
        """Create the orders that `who` has not yet, all or none. Raises MalformedCsv."""

        async def work(conn: AsyncConnection[Any]) -> list[ImportedOrder]:
            return await apply_orders(_create_on(conn), orders, who)

        return await run_transaction(self.pool, work, keeps=not dry_run, within_s=IMPORT_WITHIN_S)

    async def _one(self, name: LiteralString, parameters: Mapping[str, object]) -> Sequence[Any]:
        row = await fetch_one(self.pool, query(name, SQL_FILE), parameters)
        if row is None:
            raise UnknownOrder
        return row


def _create_on(conn: AsyncConnection[Any]) -> CreateOrder:
    async def create(**values: Any) -> Order:
        return await commands.create_order(conn, **values)

    return create
