"""A service's background tasks, and one that logs whether its database is available."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from doorstep.telemetry import get_logger

PROBE_EVERY_S = 2.0
LOG_EVERY_S = 30.0  # while it is unavailable


def start_task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start a background task that runs until it is cancelled. Log an exception that ends it."""
    task = asyncio.create_task(work)
    task.add_done_callback(_log_end)
    return task


def _log_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (exc := task.exception()) is not None:
        get_logger().error("task_ended", task=task.get_coro().__qualname__, exc_info=exc)  # type: ignore[union-attr]


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
