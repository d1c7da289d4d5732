"""Statements of the APIs, each with an answer within 5 s.

A server that has gone silent (a stopped process, a half-open network) blocks its client, and so
does cancelling a statement there. So each statement runs in a task of its own, which is abandoned
at the deadline; its connection returns to the pool, or is closed, when the task ends. A caller that
abandons its own task in time runs its statements in there (`bounded_by_caller`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, LiteralString, TypeVar

from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow

from doorstep.errors import DoorstepError, StoreUnavailable
from doorstep.store.pool import Pool, connection

T = TypeVar("T")
Work = Callable[[AsyncConnection[Any]], Awaitable[T]]
Statement = LiteralString | bytes
Parameters = Mapping[str, Any] | Sequence[Any] | None

ANSWER_WITHIN_S = 4.0  # above the wait for a connection (0.9 s), below the 5 s a caller may wait
REQUEST_WITHIN_S = 4.5  # for a request with several statements, each of which may be slow
PROBE_WITHIN_S = 2.0
ROWS_AT_ONCE = 500  # converted in about 1 ms

# Set at the start of a task that the code that started it abandons in time.
bounded_by_caller: ContextVar[bool] = ContextVar("bounded_by_caller", default=False)
_abandoned: set[asyncio.Task[Any]] = set()  # a task without a reference may be collected


async def fetch_all(
    pool: Pool, statement: Statement, parameters: Parameters = None
) -> list[TupleRow]:
    """Run one statement and return its rows. Raises StoreUnavailable within 5 s.

    Values are sent by the server in binary: cast an enum to text. Where the pool commits
    automatically, this is one round trip.
    """

    async def run() -> list[TupleRow]:
        async with connection(pool) as conn:
            cursor = await conn.execute(statement, parameters, binary=True)
            return await fetch_rows(cursor)

    return await _within(ANSWER_WITHIN_S, run())


async def fetch_rows(cursor: AsyncCursor[TupleRow]) -> list[TupleRow]:
    """Return all rows; the event loop runs between parts of many."""
    if cursor.rowcount <= ROWS_AT_ONCE:
        return await cursor.fetchall()
    rows: list[TupleRow] = []
    while part := await cursor.fetchmany(ROWS_AT_ONCE):
        rows += part
        await asyncio.sleep(0)
    return rows


async def fetch_one(
    pool: Pool, statement: Statement, parameters: Parameters = None
) -> TupleRow | None:
    """Run one statement and return its first row, if there is one. Like `fetch_all`."""
    rows = await fetch_all(pool, statement, parameters)
    return rows[0] if rows else None


async def run_command(pool: Pool, command: Work[T]) -> T:
    """Run a command that is one statement. Raises StoreUnavailable within 5 s."""

    async def run() -> T:
        async with connection(pool) as conn:
            return await command(conn)

    return await _within(ANSWER_WITHIN_S, run())


async def run_transaction(
    pool: Pool, work: Work[T], *, keeps: bool = True, within_s: float = ANSWER_WITHIN_S
) -> T:
    """Run several statements in one transaction. Raises StoreUnavailable after `within_s`.

    Without `keeps`, the transaction is rolled back at its end.
    """

    async def run() -> T:
        async with connection(pool) as conn, conn.transaction(force_rollback=not keeps):
            return await work(conn)

    return await _within(within_s, run())


@asynccontextmanager
async def request_deadline() -> AsyncIterator[None]:
    """Limit all look-ups of one request. Raises StoreUnavailable after REQUEST_WITHIN_S."""
    try:
        async with asyncio.timeout(REQUEST_WITHIN_S):
            yield
    except TimeoutError as exc:
        raise StoreUnavailable("the database did not answer in time") from exc


async def is_available(pool: Pool) -> bool:
    """Return within 2 s whether the database answers."""

    async def run() -> None:
        async with connection(pool, PROBE_WITHIN_S) as conn:
            await conn.execute("")

    try:
        await _within(PROBE_WITHIN_S, run())
    except DoorstepError:
        return False
    return True


async def _within(limit_s: float, work: Coroutine[Any, Any, T]) -> T:
    if bounded_by_caller.get():
        return await work
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=limit_s)
        if task.done():
            return task.result()
        raise StoreUnavailable("the database did not answer in time")
    finally:
        if not task.done():
            abandon(task)


def abandon(task: asyncio.Task[Any]) -> None:
    """Cancel a task without waiting for its end, and drop its outcome."""
    task.cancel()
    _abandoned.add(task)
    task.add_done_callback(_discard)


def _discard(task: asyncio.Task[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not log it
