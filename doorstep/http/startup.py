"""A service that started before its database says so, and says when it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from doorstep.telemetry import get_logger

PROBE_EVERY_S = 2.0
SAY_EVERY_S = 30.0


async def report_waiting(is_there: Callable[[], Awaitable[bool]]) -> None:
    """Watch the database for ever; log when it goes, comes, and now and then while it is away."""
    loop = asyncio.get_running_loop()
    was_there: bool | None = None
    said_at = 0.0
    while True:
        there = await is_there()
        if there and was_there is not True:
            get_logger().info("database_ready")
        elif not there and (was_there is not False or loop.time() - said_at > SAY_EVERY_S):
            get_logger().warning("waiting_for_database")
            said_at = loop.time()
        was_there = there
        await asyncio.sleep(PROBE_EVERY_S)
