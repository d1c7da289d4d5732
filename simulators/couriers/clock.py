"""Simulated time: seconds since the start of the shift, `speedup` times as fast as real time."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """The clock of one shift."""

    def __init__(self, speedup: float) -> None:
        self.speedup = speedup
        self._started_at = time.monotonic()

    def now_s(self) -> float:
        """Simulated seconds since the start of the shift."""
        return (time.monotonic() - self._started_at) * self.speedup

    async def sleep_until(self, instant_s: float) -> None:
        """Sleep until a simulated instant."""
        await asyncio.sleep(max(0.0, (instant_s - self.now_s()) / self.speedup))

    async def sleep(self, seconds: float) -> None:
        """Sleep for simulated seconds."""
        await asyncio.sleep(max(0.0, seconds / self.speedup))
