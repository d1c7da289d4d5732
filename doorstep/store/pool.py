"""The APIs' connections: a pool that fails fast and never hands out a dead connection.

`open_pool(url, size)` opens it; a request takes one with `async with connection(pool) as conn`,
which is one transaction and translates every error. A pool opened with `autocommit` runs each
statement by itself, in one round trip; `doorstep.store.deadline` uses such pools.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from doorstep.store.error_mapping import translated

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]

CONNECT_TIMEOUT_S = 5
WAIT_S = 0.9  # for a free connection: a request needs two, and a full pool answers within 2 s
STATEMENT_TIMEOUT_MS = 5_000
LOCK_TIMEOUT_MS = 2_000  # below the statement's, so that a locked row has a name of its own
IDLE_IN_TRANSACTION_TIMEOUT_MS = 5_000  # a stopped process loses its locks after this

# A server that vanished (half-open connection) is noticed within about 5 s: 2 s of silence,
# then two probes a second apart, and the same for unacknowledged bytes.
KEEPALIVES: dict[str, int] = {
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 5_000,
}

# The server's side of the same: a session whose client vanished is ended within a minute, instead
# of the kernel's two hours, before such sessions fill max_connections.
SERVER_KEEPALIVES: dict[str, int] = {
    "tcp_keepalives_idle": 30,
    "tcp_keepalives_interval": 10,
    "tcp_keepalives_count": 3,
}


class RecoveringPool(AsyncConnectionPool[AsyncConnection[TupleRow]]):
    """A pool that recovers from an outage with many requests.

    psycopg_pool counts clients that gave up against `max_waiting`, until there is a connection. At
    the limit it opens no connection, so without this the pool would refuse all requests for ever.
    """

    async def getconn(self, timeout: float | None = None) -> AsyncConnection[TupleRow]:  # noqa: ASYNC109
        try:
            return await super().getconn(timeout)
        except (PoolTimeout, asyncio.CancelledError):
            self._waiting = deque(one for one in self._waiting if one.error is None)
            raise


def connection_options(
    *,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
) -> dict[str, str | int]:
    """Give the libpq parameters that every connection of ours uses."""
    gucs = {
        "statement_timeout": statement_timeout_ms,
        "lock_timeout": lock_timeout_ms,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_MS,
        "search_path": "doorstep,public",
        "timezone": "UTC",
        "jit": "off",
        **SERVER_KEEPALIVES,
    }
    options = " ".join(f"-c {name}={value}" for name, value in gucs.items())
    return {"connect_timeout": CONNECT_TIMEOUT_S, "options": options, **KEEPALIVES}


def connect(
    url: str,
    *,
    statement_timeout_ms: int = 30_000,  # a batch of 20,000 fixes on a busy machine
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
    application_name: str = "doorstep",
) -> psycopg.Connection[TupleRow]:
    """Open one synchronous connection, for driver_events. Raises StoreUnavailable."""
    options = connection_options(
        statement_timeout_ms=statement_timeout_ms, lock_timeout_ms=lock_timeout_ms
    )
    with translated():
        return psycopg.connect(url, application_name=application_name, **options)  # type: ignore[arg-type]


async def open_pool(
    url: str,
    size: int = 10,
    *,
    application_name: str = "doorstep",
    autocommit: bool = False,
) -> Pool:
    """Open a pool. Returns at once; while the database is down, the pool retries."""
    pool: Pool = RecoveringPool(
        url,
        min_size=min(2, size),
        max_size=size,
        kwargs={
            "application_name": application_name,
            "autocommit": autocommit,
            **connection_options(),
        },
        check=check_if_readable,
        timeout=WAIT_S,
        max_waiting=20 * size,
        max_lifetime=30 * 60.0,
        reconnect_timeout=5.0,
        open=False,
    )
    await pool.open(wait=False)
    return pool


async def check_if_readable(conn: AsyncConnection[TupleRow]) -> None:
    """Check a connection only if its socket is readable: a server that closes it sends an end.

    Without a round trip for a healthy connection. Raises OperationalError for a closed one.
    """
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(conn)


@asynccontextmanager
async def connection(
    pool: Pool, wait_s: float = WAIT_S
) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """Take a connection for one transaction: commits at the end, rolls back on an error.

    Raises StoreUnavailable when the database is away or no connection is free within `wait_s`.
    """
    with translated():
        async with pool.connection(wait_s) as conn:
            try:
                yield conn
            except psycopg.errors.ReadOnlySqlTransaction:
                await conn.close()  # its server is a standby now: the next one leads to the primary
                raise
