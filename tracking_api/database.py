"""What tracking_api asks of the database, and the pools that ask it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.errors import CheckViolation
from sqlalchemy.ext.asyncio import AsyncEngine

from doorstep.errors import DoorstepError, StoreUnavailable
from doorstep.store import commands
from doorstep.store.pool import Pool, connection, open_pool
from doorstep.store.reading import open_reading, reading
from doorstep.store.rows import Order, Token
from doorstep.web.problems import UnusableRequest
from tracking_api import reads
from tracking_api.cursors import Cursor
from tracking_api.schemas import DriverAnswer, NewOrder, NewPolicy, OrderState, RestaurantAnswer
from tracking_api.view import Near, Spot, TrackedOrder

COMMAND_TIMEOUT_S = 4.5  # above the wait for a connection (2 s), below the 5 s a caller may wait
PROBE_TIMEOUT_S = 2.0


class Store(Protocol):
    """The seam between routes and database. Errors are DoorstepErrors."""

    async def find_token(self, token_sha256: bytes) -> Token | None: ...

    async def create_order(
        self, new: NewOrder, token_sha256: bytes, idempotency_key: str | None
    ) -> Order: ...

    async def apply_order_command(
        self,
        order_id: UUID,
        command: str,
        actor: str,
        driver_id: str | None,
        idempotency_key: str | None,
    ) -> Order: ...

    async def replace_customer_token(self, order_id: UUID, token_sha256: bytes) -> None: ...

    async def revoke_customer_tokens(self, order_id: UUID) -> None: ...

    async def create_policy(self, new: NewPolicy) -> int: ...

    async def read_track(self, order_id: UUID) -> TrackedOrder | None: ...

    async def read_history(
        self,
        order_id: UUID,
        from_at: datetime | None,
        to_at: datetime | None,
        *,
        limit: int,
        after_the_end: bool,
    ) -> list[Spot] | None: ...

    async def read_orders(
        self, states: Sequence[OrderState], limit: int, after: Cursor | None
    ) -> list[Order]: ...

    async def read_order(self, order_id: UUID) -> Order: ...

    async def read_driver(self, driver_id: str) -> DriverAnswer: ...

    async def read_nearest(
        self, lon_deg: float, lat_deg: float, limit: int
    ) -> tuple[datetime, list[Near]]: ...

    async def read_positions(self, since_ms: int | None) -> tuple[int, list[list[Any]]]: ...

    async def read_restaurants(self) -> list[RestaurantAnswer]: ...

    async def read_policies(self) -> list[dict[str, Any]]: ...

    async def is_there(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Database:
    """The store on PostgreSQL: a pool for commands and tokens, an engine for reads."""

    pool: Pool
    engine: AsyncEngine

    @classmethod
    async def open(cls, url: str, size: int) -> Self:
        """Open both. The database may still be away."""
        pool = await open_pool(url, size, application_name="tracking_api")
        return cls(pool, open_reading(url, size, application_name="tracking_api"))

    async def close(self) -> None:
        """Give back every connection."""
        await self.pool.close()
        await self.engine.dispose()

    async def find_token(self, token_sha256: bytes) -> Token | None:
        """Look a token up. None if it is unknown, revoked or expired."""
        async with self._command() as conn:
            return await commands.find_token(conn, token_sha256)

    async def create_order(
        self, new: NewOrder, token_sha256: bytes, idempotency_key: str | None
    ) -> Order:
        """Create an order, or find the one that this key created."""
        async with self._command() as conn:
            return await commands.create_order(
                conn,
                restaurant_id=new.restaurant_id,
                lon_deg=new.destination.lon_deg,
                lat_deg=new.destination.lat_deg,
                token_sha256=token_sha256,
                policy_id=new.policy_id,
                idempotency_key=idempotency_key,
                customer_name=new.customer_name,
            )

    async def apply_order_command(
        self,
        order_id: UUID,
        command: str,
        actor: str,
        driver_id: str | None,
        idempotency_key: str | None,
    ) -> Order:
        """Apply a command of staff or of the order's customer."""
        async with self._command() as conn:
            return await commands.apply_order_command(
                conn,
                order_id,
                command,
                actor=actor,
                actor_id=actor,
                driver_id=driver_id,
                idempotency_key=idempotency_key,
            )

    async def replace_customer_token(self, order_id: UUID, token_sha256: bytes) -> None:
        """Make this the order's only good customer token."""
        async with self._command() as conn:
            await commands.replace_customer_token(conn, order_id, token_sha256)

    async def revoke_customer_tokens(self, order_id: UUID) -> None:
        """End every customer token of the order."""
        async with self._command() as conn:
            await commands.revoke_customer_tokens(conn, order_id)

    async def create_policy(self, new: NewPolicy) -> int:
        """Add a policy. Raises UnusableRequest for values that don't fit together."""
        try:
            async with self._command() as conn:
                return await commands.create_policy(conn, **new.model_dump(exclude_none=True))
        except CheckViolation as exc:
            rule = exc.diag.constraint_name or "a rule of the table"
            complaint = {"loc": "body", "msg": f"violates {rule}", "reason": "out_of_range"}
            raise UnusableRequest([complaint]) from exc

    async def read_track(self, order_id: UUID) -> TrackedOrder | None:
        """Read what a customer's answer is made of, in one snapshot."""
        async with reading(self.engine) as conn:
            return await reads.select_track(conn, order_id)

    async def read_history(
        self,
        order_id: UUID,
        from_at: datetime | None,
        to_at: datetime | None,
        *,
        limit: int,
        after_the_end: bool,
    ) -> list[Spot] | None:
        """Read the current assignment's fixes, oldest first. None if there is no such order."""
        async with reading(self.engine) as conn:
            return await reads.select_history(
                conn, order_id, from_at, to_at, limit=limit, after_the_end=after_the_end
            )

    async def read_orders(
        self, states: Sequence[OrderState], limit: int, after: Cursor | None
    ) -> list[Order]:
        """Read a page of orders, the newest first."""
        async with reading(self.engine) as conn:
            return await reads.select_orders(conn, states, limit, after)

    async def read_order(self, order_id: UUID) -> Order:
        """Read one order. Raises UnknownOrder."""
        async with reading(self.engine) as conn:
            return await reads.select_order(conn, order_id)

    async def read_driver(self, driver_id: str) -> DriverAnswer:
        """Read one driver. Raises UnknownDriver."""
        async with reading(self.engine) as conn:
            return await reads.select_driver(conn, driver_id)

    async def read_nearest(
        self, lon_deg: float, lat_deg: float, limit: int
    ) -> tuple[datetime, list[Near]]:
        """Read the nearest available drivers, and the database's time."""
        async with reading(self.engine) as conn:
            return await reads.select_nearest(conn, lon_deg, lat_deg, limit)

    async def read_positions(self, since_ms: int | None) -> tuple[int, list[list[Any]]]:
        """Read every driver's newest position, and the database's time in ms."""
        async with reading(self.engine) as conn:
            return await reads.select_positions(conn, since_ms)

    async def read_restaurants(self) -> list[RestaurantAnswer]:
        """Read every restaurant."""
        async with reading(self.engine) as conn:
            return await reads.select_restaurants(conn)

    async def read_policies(self) -> list[dict[str, Any]]:
        """Read every policy."""
        async with reading(self.engine) as conn:
            return await reads.select_policies(conn)

    async def is_there(self) -> bool:
        """Say within 2 s whether the database answers."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S), connection(self.pool):
                return True
        except (DoorstepError, TimeoutError):
            return False

    @asynccontextmanager
    async def _command(self) -> AsyncIterator[AsyncConnection[Any]]:
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S), connection(self.pool) as conn:
                yield conn
        except TimeoutError as exc:
            raise StoreUnavailable("the database did not answer in time") from exc
