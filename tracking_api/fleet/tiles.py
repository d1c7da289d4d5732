"""Vector tiles of the fleet, each read at most once in two seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tracking_api.fleet.dispatch_queries import DispatchStore, TileFilters

FRESH_FOR_S = 2.0
MAX_SINGLE_DRIVERS = 1000  # in one tile; more come as 16 x 16 cells
MAX_TILES = 2000  # of about 10 KB

TileKey = tuple[int, int, int, TileFilters]


class TileCache:
    """A short-lived cache. Concurrent requests for a tile share one read."""

    def __init__(self, store: DispatchStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._tiles: dict[TileKey, tuple[float, asyncio.Task[bytes]]] = {}

    async def get(self, z: int, x: int, y: int, filters: TileFilters) -> bytes:
        """Return a tile at most two seconds old. Raises StoreUnavailable."""
        key, now_s = (z, x, y, filters), self._clock()
        cached = self._tiles.get(key)
        if cached is None or now_s - cached[0] > FRESH_FOR_S or _has_failed(cached[1]):
            reading = self._store.read_tile(z, x, y, filters, MAX_SINGLE_DRIVERS)
            cached = self._tiles[key] = now_s, asyncio.ensure_future(reading)
            if len(self._tiles) > MAX_TILES:
                self._evict(now_s)
        return await asyncio.shield(cached[1])  # a cancelled request does not cancel the others'

    def _evict(self, now_s: float) -> None:
        old = [key for key, (read_s, _) in self._tiles.items() if now_s - read_s > FRESH_FOR_S]
        for key in old or list(self._tiles)[: MAX_TILES // 2]:
            del self._tiles[key]


def _has_failed(task: asyncio.Task[bytes]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
