"""Asking PostgreSQL from an API: one transaction a question, and an answer within 5 s.

A server that has gone silent (a stopped process, a half-open network) holds whoever waits for it,
also while the waiting is being given up: cancelling a statement asks the same silent server. So a
question runs as a task of its own, and is left behind when its time is over; its connection goes
back to the pool, or to the scrap heap, when it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import psycopg
from sqlalchemy import exc as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from doorstep.errors import DoorstepError, StoreUnavailable
from doorstep.store.error_mapping import from_sqlstate
from doorstep.store.pool import WAIT_S, Pool, connection, connection_options

T = TypeVar("T")

ANSWER_WITHIN_S = 4.0  # above the wait for a connection (0.9 s), below the 5 s a caller may wait
PROBE_WITHIN_S = 2.0

_left_behind: set[asyncio.Task[Any]] = set()  # a task that nobody refers to may vanish half-way


def open_reading(url: str, size: int, *, application_name: str) -> AsyncEngine:
    """Make an engine for reads with SQLAlchemy Core: a read-only snapshot each.

    It connects when it is first used, so the database may come later.
    """
    return create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=size,
        max_overflow=0,
        pool_timeout=WAIT_S,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={"application_name": application_name, **connection_options()},
        execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
    )


async def ask(pool: Pool, question: Callable[[psycopg.AsyncConnection[Any]], Awaitable[T]]) -> T:
    """Run a command in a transaction of its own. Raises StoreUnavailable within 5 s."""

    async def run() -> T:
        async with connection(pool) as conn:
            return await question(conn)

    return await _within(ANSWER_WITHIN_S, run())


async def read(engine: AsyncEngine, question: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Run a read in a snapshot of its own. Raises StoreUnavailable within 5 s."""

    async def run() -> T:
        try:
            async with engine.connect() as conn:
                return await question(conn)
        except sa.TimeoutError as exc:
            raise StoreUnavailable("no database connection became free in time") from exc
        except sa.DBAPIError as exc:
            if not isinstance(exc.orig, psycopg.Error):
                raise
            raise from_sqlstate(exc.orig) from exc

    return await _within(ANSWER_WITHIN_S, run())


async def is_there(pool: Pool) -> bool:
    """Say within 2 s whether the database answers."""

    async def run() -> None:
        async with connection(pool, PROBE_WITHIN_S):
            pass  # the pool has checked the connection

    try:
        await _within(PROBE_WITHIN_S, run())
    except DoorstepError:
        return False
    return True


async def _within(limit_s: float, work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=limit_s)
        if task.done():
            return task.result()
        raise StoreUnavailable("the database did not answer in time")
    finally:
        if not task.done():
            task.cancel()
            _left_behind.add(task)
            task.add_done_callback(_forget)


def _forget(task: asyncio.Task[Any]) -> None:
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()  # seen: whoever asked has had an answer long ago
