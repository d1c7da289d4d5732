"""Wait for a condition by polling."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

POLL_S = 0.05


def wait_until(
    condition: Callable[[], object], timeout_s: float = 30.0, description: str = ""
) -> None:
    """Poll until `condition()` is true. Raises AssertionError after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {description or condition}")
        time.sleep(POLL_S)


async def wait_until_async(
    condition: Callable[[], object], timeout_s: float = 30.0, description: str = ""
) -> None:
    """Like `wait_until`, without blocking the event loop."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {description or condition}")
        await asyncio.sleep(POLL_S)
