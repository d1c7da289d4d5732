"""Vector tiles of the fleet, each read once for everybody who asks within two seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tracking_api.fleet.dispatch_queries import DispatchStore, Filters

FRESH_FOR_S = 2.0
ONE_BY_ONE = 1000  # drivers in one tile; more come as 16 x 16 cells
MOST_KEPT = 2000  # tiles, of some 10 KB

Key = tuple[int, int, int, Filters]


class Tiles:
    """A short cache. Those who ask while a tile is being read wait for the same read."""

    def __init__(self, store: DispatchStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._kept: dict[Key, tuple[float, asyncio.Task[bytes]]] = {}

    async def get(self, z: int, x: int, y: int, filters: Filters) -> bytes:
        """A tile, at most two seconds old. Raises StoreUnavailable."""
        key, now = (z, x, y, filters), self._clock()
        kept = self._kept.get(key)
        if kept is None or now - kept[0] > FRESH_FOR_S or _failed(kept[1]):
            reading = self._store.read_tile(z, x, y, filters, ONE_BY_ONE)
            kept = self._kept[key] = now, asyncio.ensure_future(reading)
            if len(self._kept) > MOST_KEPT:
                self._forget(now)
        return await asyncio.shield(kept[1])  # who gives up waiting doesn't stop the others

    def _forget(self, now: float) -> None:
        old = [key for key, (read_at, _) in self._kept.items() if now - read_at > FRESH_FOR_S]
        for key in old or list(self._kept)[: MOST_KEPT // 2]:
            del self._kept[key]


def _failed(task: asyncio.Task[bytes]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
