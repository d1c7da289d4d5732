"""Reads through SQLAlchemy Core: one consistent snapshot a request, read-only, bounded in time.

The tables are `doorstep.tables`. Every error comes out as a DoorstepError, as in the rest of the
store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from sqlalchemy import exc as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from doorstep.errors import StoreUnavailable
from doorstep.store.pool import WAIT_S, connection_options
from doorstep.store.translate import from_sqlstate

READ_TIMEOUT_S = 4.5  # above the wait for a connection, below the 5 s that a caller may wait


def open_reading(url: str, size: int, *, application_name: str) -> AsyncEngine:
    """Make the engine. It connects when it is first used, so the database may come later."""
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


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Take a connection for one snapshot. Raises StoreUnavailable within 5 s."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_S), engine.connect() as conn:
            yield conn
    except TimeoutError as exc:
        raise StoreUnavailable("the database did not answer in time") from exc
    except sa.TimeoutError as exc:
        raise StoreUnavailable("no database connection became free in time") from exc
    except sa.DBAPIError as exc:
        if not isinstance(exc.orig, psycopg.Error):
            raise
        raise from_sqlstate(exc.orig) from exc
