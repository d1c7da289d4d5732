"""Logs whether a service's database is available."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from doorstep.telemetry import get_logger

PROBE_EVERY_S = 2.0
LOG_EVERY_S = 30.0  # while it is unavailable


async def log_availability(is_available: Callable[[], Awaitable[bool]]) -> None:
    """Probe the database until cancelled; log each change, and periodically while unavailable."""
    loop = asyncio.get_running_loop()
    was_available: bool | None = None
    logged_s = 0.0
    while True:
        available = await is_available()
        if available and was_available is not True:
            get_logger().info("database_ready")
        elif not available and (was_available is not False or loop.time() - logged_s > LOG_EVERY_S):
            get_logger().warning("waiting_for_database")
            logged_s = loop.time()
        was_available = available
        await asyncio.sleep(PROBE_EVERY_S)
