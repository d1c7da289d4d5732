"""Orders in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from doorstep.errors import UnknownOrder
from doorstep.store import commands
from doorstep.store.deadline import fetch_all, fetch_one, run_command
from doorstep.store.records import DetailedOrder, Order
from sql import query
from tracking_api.orders.end_queries import OrderEndQueries, OrderEndStore
from tracking_api.orders.search import DueRange, OrderKey, list_query

SQL_FILE = "queries/orders.sql"


class OrderStore(OrderEndStore, Protocol):
    """Orders and their commands. Errors are DoorstepErrors."""

    async def create_order(
        self,
        *,
        restaurant_id: int | None,
        destination: tuple[float, float],
        token_sha256: bytes,
        policy_id: int | None,
        customer_name: str | None,
        idempotency_key: str | None,
        who: str | None = None,
        pickup: Mapping[str, object] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> Order: ...

    async def command_order(
        self,
        order_id: UUID,
        command: str,
        name: str,
        driver_id: str | None,
        idempotency_key: str | None,
    ) -> Order: ...

    async def assign_order(
        self,
        order_id: UUID,
        command: str,
        name: str,
        driver_id: str | None,
        stop_no: int | None,
        idempotency_key: str | None,
    ) -> Order: ...

    async def replace_customer_token(self, order_id: UUID, token_sha256: bytes) -> None: ...

    async def revoke_customer_tokens(self, order_id: UUID) -> None: ...

    async def read_order(self, order_id: UUID) -> DetailedOrder: ...

    async def list_orders(
        self,
        states: Sequence[str],
        limit: int,
        after: OrderKey | None,
        text: str | None = None,
        due: DueRange | None = None,
    ) -> list[DetailedOrder]: ...


@dataclass(frozen=True, slots=True)
class OrderQueries(OrderEndQueries):
    """The OrderStore on PostgreSQL."""

    async def create_order(
        self,
        *,
        restaurant_id: int | None,
        destination: tuple[float, float],
        token_sha256: bytes,
        policy_id: int | None,
        customer_name: str | None,
        idempotency_key: str | None,
        who: str | None = None,
        pickup: Mapping[str, object] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> Order:
        """Create an order, or return the one that `who` created under this idempotency key.

        `destination` is longitude, latitude; `who` is named in the audit. Raises
        UnknownRestaurant, UnknownPolicy, IdempotencyConflict, ExternalIdTaken.
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
                pickup=pickup,
                details=details,
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

    async def assign_order(
        self,
        order_id: UUID,
        command: str,
        name: str,
        driver_id: str | None,
        stop_no: int | None,
        idempotency_key: str | None,
    ) -> Order:
        """Assign or reassign: the new stop goes to `stop_no`, or to the least detour."""
        return await run_command(
            self.pool,
            lambda conn: commands.assign_order_as_staff(
                conn,
                order_id,
                command,
                name=name,
                driver_id=driver_id,
                stop_no=stop_no,
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

    async def read_order(self, order_id: UUID) -> DetailedOrder:
        """Read one order. Raises UnknownOrder."""
        row = await fetch_one(self.pool, query("read_order", SQL_FILE), {"order_id": order_id})
        if row is None:
            raise UnknownOrder
        return DetailedOrder(Order(*row[:-1]), row[-1])

    async def list_orders(
        self,
        states: Sequence[str],
        limit: int,
        after: OrderKey | None,
        text: str | None = None,
        due: DueRange | None = None,
    ) -> list[DetailedOrder]:
        """Read a page of orders, the newest first: with `states`, only those in one of them; with
        `text`, only those whose details have a word that begins with each of its words; with `due`,
        only those with a time in it, of their promised window, `ready_at` or `scheduled_for`."""
        statement, parameters = list_query(limit, states=states, after=after, text=text, due=due)
        rows = await fetch_all(self.pool, statement, parameters)
        return [DetailedOrder(Order(*row[:-1]), row[-1]) for row in rows]
