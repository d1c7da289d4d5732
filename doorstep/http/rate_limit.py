"""Token buckets: a sustained rate and a burst."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from doorstep.errors import TooManyRequests


class RateLimiter:
    """One bucket per key: holds `burst`, refilled at `rate_per_s`. Full ones are dropped."""

    def __init__(
        self,
        rate_per_s: float,
        burst: float,
        most_keys: int = 200_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._most_keys = most_keys
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key: (level, at)

    def take(self, key: str, count: float = 1) -> None:
        """Take `count` from the key's bucket. Raises TooManyRequests, taking nothing."""
        now = self._clock()
        level, at = self._levels.pop(key, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate_per_s)
        short = count - level
        self._levels[key] = (level if short > 0 else level - count, now)
        self._drop_full(now)
        if short > 0:
            raise TooManyRequests(short / self._rate_per_s)

    def _drop_full(self, now: float) -> None:
        """Drop the least recently used keys: those full again, and any over the limit."""
        until_full_s = self._burst / self._rate_per_s
        while self._levels:
            key, (_, at) = next(iter(self._levels.items()))
            if len(self._levels) <= self._most_keys and now - at < until_full_s:
                return
            del self._levels[key]
