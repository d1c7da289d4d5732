"""A bound on the dead letters that are kept for one device or source."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from doorstep.errors import TooManyRequests
from doorstep.http.rate_limit import RateLimiter
from doorstep.store.records import DeadLetter
from driver_events import metrics

BURST_MINUTES = 60  # a phone whose clock fails sends 900 useless fixes in an hour


class DeadLetterLimit:
    """Keeps `per_minute` dead letters of each device, and counts the others.

    A dead letter has up to 64 KiB and is kept for 30 days.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limiter = RateLimiter(per_minute / 60, BURST_MINUTES * per_minute, clock=clock)

    def keep(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Return the letters to be kept, in their order."""
        kept = []
        for letter in letters:
            try:
                self._limiter.take(_sender_of(letter))
            except TooManyRequests:
                metrics.DEAD_LETTERS_DROPPED.inc()
            else:
                kept.append(letter)
        return kept


def _sender_of(letter: DeadLetter) -> str:
    """The device, or the source that doorstep/v1/series/{source_id}/{measure} names."""
    return letter.driver_id or "/".join(letter.topic.split("/")[:4])
