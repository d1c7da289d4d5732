"""Simulated time: seconds since the shift began, running `speedup` times as fast as ours."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """One shift's clock."""

    def __init__(self, speedup: float) -> None:
        self.speedup = speedup
        self._began = time.monotonic()

    def now_s(self) -> float:
        """Simulated seconds since the shift began."""
        return (time.monotonic() - self._began) * self.speedup

    async def until(self, instant_s: float) -> None:
        """Sleep until a simulated instant."""
        await asyncio.sleep(max(0.0, (instant_s - self.now_s()) / self.speedup))

    async def sleep(self, seconds: float) -> None:
        """Sleep for simulated seconds."""
        await asyncio.sleep(max(0.0, seconds / self.speedup))
