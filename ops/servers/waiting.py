"""Wait for a condition by polling it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

TIMEOUT_S = 60.0  # against hanging only: generous, because a machine may be busy
POLL_S = 0.05


def poll_until(
    condition: Callable[[], object], timeout_s: float = TIMEOUT_S, *, poll_s: float = POLL_S
) -> bool:
    """Poll until `condition()` is true. Returns False after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(poll_s)
    return True


def wait_until(
    condition: Callable[[], object],
    timeout_s: float = TIMEOUT_S,
    description: str = "",
    *,
    poll_s: float = POLL_S,
) -> None:
    """Poll until `condition()` is true. Raises TimeoutError after `timeout_s`."""
    if not poll_until(condition, timeout_s, poll_s=poll_s):
        raise TimeoutError(f"not within {timeout_s:g} s: {description or condition}")


async def wait_until_async(
    condition: Callable[[], object], timeout_s: float = TIMEOUT_S, description: str = ""
) -> None:
    """Like `wait_until`, without blocking the event loop."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {timeout_s:g} s: {description or condition}")
        await asyncio.sleep(POLL_S)
