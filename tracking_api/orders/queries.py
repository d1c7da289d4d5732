"""Orders in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Protocol
from uuid import UUID

from sqlalchemy import ARRAY, DateTime, Integer, Text, Uuid, any_, bindparam, cast, select, tuple_

from doorstep.errors import UnknownOrder
from doorstep.store import commands
from doorstep.store.compiled import compile_statement
from doorstep.store.deadline import fetch_all, fetch_one, run_command
from doorstep.store.pool import Pool
from doorstep.store.records import Order
from doorstep.store.tables import order_now
from sql import query

SQL_FILE = "queries/orders.sql"

OrderKey = tuple[datetime, UUID]
"""Where a page of orders ended: created_at, order_id."""


class OrderStore(Protocol):
    """Orders and their commands. Errors are DoorstepErrors."""

    async def create_order(
        self,
        *,
        restaurant_id: int,
        destination: tuple[float, float],
        token_sha256: bytes,
        policy_id: int | None,
        customer_name: str | None,
        idempotency_key: str | None,
        who: str | None = None,
    ) -> Order: ...

    async def command_order(
        self,
        order_id: UUID,
        command: str,
        name: str,
        driver_id: str | None,
        idempotency_key: str | None,
    ) -> Order: ...

    async def replace_customer_token(self, order_id: UUID, token_sha256: bytes) -> None: ...

    async def revoke_customer_tokens(self, order_id: UUID) -> None: ...

    async def read_order(self, order_id: UUID) -> Order: ...

    async def list_orders(
        self, states: Sequence[str], limit: int, after: OrderKey | None
    ) -> list[Order]: ...


@dataclass(frozen=True, slots=True)
class OrderQueries:
    """The OrderStore on PostgreSQL."""

    pool: Pool

    async def create_order(
        self,
        *,
        restaurant_id: int,
        destination: tuple[float, float],
        token_sha256: bytes,
        policy_id: int | None,
        customer_name: str | None,
        idempotency_key: str | None,
        who: str | None = None,
    ) -> Order:
        """Create an order, or return the one that `who` created under this idempotency key.

        `destination` is longitude, latitude; `who` is named in the audit. Raises
        UnknownRestaurant, UnknownPolicy, IdempotencyConflict.
        """
        return await run_command(
            self.pool,
            lambda conn: commands.create_order(
                conn,
                restaurant_id=restaurant_id,
                lon_deg=destination[0],
                lat_deg=destination[1],
                token_sha256=token_sha256,
                policy_id=policy_id,
                idempotency_key=idempotency_key,
                customer_name=customer_name,
                who=who,
            ),
        )

    async def command_order(
        self,
        order_id: UUID,
        command: str,
        name: str,
        driver_id: str | None,
        idempotency_key: str | None,
    ) -> Order:
        """Apply a command of the member of staff of this name."""
        return await run_command(
            self.pool,
            lambda conn: commands.command_order_as_staff(
                conn,
                order_id,
                command,
                name=name,
                driver_id=driver_id,
                idempotency_key=idempotency_key,
            ),
        )

    async def replace_customer_token(self, order_id: UUID, token_sha256: bytes) -> None:
        """Revoke the order's customer tokens and make this one valid. Raises UnknownOrder."""
        await run_command(
            self.pool, lambda conn: commands.replace_customer_token(conn, order_id, token_sha256)
        )

    async def revoke_customer_tokens(self, order_id: UUID) -> None:
        """Revoke every customer token of the order. Raises UnknownOrder."""
        await run_command(self.pool, lambda conn: commands.revoke_customer_tokens(conn, order_id))

    async def read_order(self, order_id: UUID) -> Order:
        """Read one order. Raises UnknownOrder."""
        row = await fetch_one(self.pool, query("read_order", SQL_FILE), {"order_id": order_id})
        if row is None:
            raise UnknownOrder
        return Order(*row)

    async def list_orders(
        self, states: Sequence[str], limit: int, after: OrderKey | None
    ) -> list[Order]:
        """Read a page of orders, the newest first; with `states`, only those in one of them."""
        statement = _list_orders(by_state=bool(states), from_cursor=after is not None)
        parameters: dict[str, object] = {"limit": limit}
        if states:
            parameters["states"] = list(states)
        if after is not None:
            parameters |= {"created_at": after[0], "order_id": after[1]}
        return [Order(*row) for row in await fetch_all(self.pool, statement, parameters)]


@cache
def _list_orders(*, by_state: bool, from_cursor: bool) -> bytes:
    orders = order_now.c
    statement = select(
        orders.order_id,
        cast(orders.state, Text),
        orders.assignment_no,
        orders.driver_id,
        orders.order_seq,
        orders.restaurant_id,
        orders.lon_deg,
        orders.lat_deg,
        orders.customer_name,
        orders.policy_id,
        orders.created_at,
        orders.assigned_at,
        orders.ended_at,
    )
    if by_state:
        # compared as text: a driver of the database sends no enum array
        wanted = bindparam("states", type_=ARRAY(Text))
        statement = statement.where(cast(orders.state, Text) == any_(wanted))
    if from_cursor:
        after = tuple_(
            bindparam("created_at", type_=DateTime(timezone=True)),
            bindparam("order_id", type_=Uuid()),
        )
        statement = statement.where(tuple_(orders.created_at, orders.order_id) < after)
    newest_first = statement.order_by(orders.created_at.desc(), orders.order_id.desc())
    return compile_statement(newest_first.limit(bindparam("limit", type_=Integer)))
