"""When a failed delivery is tried again: growing pauses for a day. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

GROWTH = 3.0
MAX_PAUSE_S = 7200.0  # 5 s, 15 s, 45 s, 2 min, 7 min, 20 min, 1 h, then every 2 h: 19 attempts
JITTER = 0.2  # so that what failed together is not tried again together
MAX_RETRY_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """The pauses between attempts."""

    first_pause_s: float = 5.0
    retry_for_s: float = 86_400.0
    draw: Callable[[], float] = random.random

    def pause_s(
        self, attempt: int, since_first_s: float, retry_after_s: float | None = None
    ) -> float | None:
        """Return the pause after attempt 1, 2, …; None to give up.

        `since_first_s` is the time since the first attempt. A receiver's `Retry-After` makes a
        pause longer, never shorter, and by an hour at most.
        """
        if since_first_s >= self.retry_for_s:
            return None
        exponent = min(attempt - 1, 20)
        pause_s = min(self.first_pause_s * GROWTH**exponent, MAX_PAUSE_S)
        pause_s *= 1 + JITTER * (2 * self.draw() - 1)
        if retry_after_s is not None:
            pause_s = max(pause_s, min(retry_after_s, MAX_RETRY_AFTER_S))
        return min(pause_s, max(self.retry_for_s - since_first_s, 0.0))


def parse_retry_after(value: str | None) -> float | None:
    """Return a Retry-After in seconds; None for a date, or anything else."""
    text = (value or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
