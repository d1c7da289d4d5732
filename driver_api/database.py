"""What driver_api asks of the database, and the pools that ask it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self
from uuid import UUID

from psycopg import AsyncConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from doorstep.errors import DriverLocked, StoreUnavailable, TooManyRequests
from doorstep.store import commands
from doorstep.store.deadline import ask, is_there, open_reading, read
from doorstep.store.fix_writer import record_fixes_async
from doorstep.store.pool import Pool, open_pool
from doorstep.store.records import Driver, IncomingRow, Order, Outcome, Token
from driver_api.queries import select_driver_and_order
from driver_api.schemas import CurrentOrder

LOCK_PATIENCE_S = 1.0  # a batch holds its drivers' rows for about 0.1 s, rarely for longer
LOCK_RETRY_S = 0.03
QUOTA_PER_S = 5.0  # limits.quota_per_s: for Retry-After
RETRY_WITHIN_S = 0.5  # a broken connection shows at once; a full pool or no database takes 0.9 s


class Store(Protocol):
    """The seam between routes and database. Errors are DoorstepErrors."""

    async def find_token(self, token_sha256: bytes) -> Token | None: ...

    async def record_fixes(self, rows: Sequence[IncomingRow]) -> list[Outcome]: ...

    async def apply_driver_command(
        self, driver_id: str, command: str, idempotency_key: str | None
    ) -> Driver: ...

    async def apply_order_command(
        self, order_id: UUID, command: str, driver_id: str, idempotency_key: str | None
    ) -> Order: ...

    async def read_driver(self, driver_id: str) -> tuple[Driver, CurrentOrder | None]: ...

    async def is_there(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Database:
    """The store on PostgreSQL: a pool for commands and fixes, an engine for reads."""

    pool: Pool
    engine: AsyncEngine

    @classmethod
    async def open(cls, url: str, size: int) -> Self:
        """Open both. The database may still be away."""
        pool = await open_pool(url, size, application_name="driver_api")
        return cls(pool, open_reading(url, max(1, size // 2), application_name="driver_api"))

    async def close(self) -> None:
        """Give back every connection."""
        await self.pool.close()
        await self.engine.dispose()

    async def find_token(self, token_sha256: bytes) -> Token | None:
        """Look a token up. None if it is unknown, revoked or expired."""
        return await ask(self.pool, lambda conn: commands.find_token(conn, token_sha256))

    async def record_fixes(self, rows: Sequence[IncomingRow]) -> list[Outcome]:
        """Commit fixes of one driver. Raises DriverLocked or, over the driver's quota,
        TooManyRequests, having written nothing.

        A connection that breaks under way is tried once more: writing a fix twice is harmless. A
        driver whose row a batch of driver_events holds is free again in a moment.
        """
        started = time.monotonic()
        reconnected = False
        while True:
            try:
                return await self._record_fixes(rows)
            except DriverLocked:
                if time.monotonic() - started > LOCK_PATIENCE_S:
                    raise
                await asyncio.sleep(LOCK_RETRY_S)
            except StoreUnavailable:
                if reconnected or time.monotonic() - started > RETRY_WITHIN_S:
                    raise
                reconnected = True

    async def _record_fixes(self, rows: Sequence[IncomingRow]) -> list[Outcome]:
        async def record(conn: AsyncConnection[Any]) -> list[Outcome]:
            outcomes = await record_fixes_async(conn, rows)
            # Both roll back: parked is not committed, so it is no 200.
            over_quota = sum(found.reason == "over_quota" for found in outcomes)
            if over_quota:
                raise TooManyRequests(over_quota / QUOTA_PER_S)
            if any(found.outcome == "parked" for found in outcomes):
                raise DriverLocked
            return outcomes

        return await ask(self.pool, record)

    async def apply_driver_command(
        self, driver_id: str, command: str, idempotency_key: str | None
    ) -> Driver:
        """Apply on_duty, on_break or off_duty."""
        return await ask(
            self.pool,
            lambda conn: commands.apply_driver_command(
                conn, driver_id, command, idempotency_key=idempotency_key
            ),
        )

    async def apply_order_command(
        self, order_id: UUID, command: str, driver_id: str, idempotency_key: str | None
    ) -> Order:
        """Apply decline, pick_up, deliver or fail in the driver's name."""
        return await ask(
            self.pool,
            lambda conn: commands.apply_order_command(
                conn,
                order_id,
                command,
                actor="driver",
                actor_id=driver_id,
                idempotency_key=idempotency_key,
            ),
        )

    async def read_driver(self, driver_id: str) -> tuple[Driver, CurrentOrder | None]:
        """Read a driver and their open order. Raises UnknownDriver."""
        return await read(self.engine, lambda conn: select_driver_and_order(conn, driver_id))

    async def is_there(self) -> bool:
        """Say within 2 s whether the database answers."""
        return await is_there(self.pool)
