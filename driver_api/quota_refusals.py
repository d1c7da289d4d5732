"""The drivers whom the database has just refused for their quota.

The database keeps the quota (docs/explanation/watermark.md). Remembering its answer for a second
means that a driver who floods costs it one transaction a second.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from doorstep.errors import TooManyRequests

REMEMBERED_S = 1.0  # within it, the quota grows by 5 fixes


class QuotaRefusals:
    """When each driver was last refused. Older ones are dropped."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until_s: OrderedDict[str, float] = OrderedDict()  # the soonest first

    def check(self, driver_id: str) -> None:
        """Raise TooManyRequests for a driver who was refused within REMEMBERED_S."""
        now_s = self._clock()
        while self._until_s and next(iter(self._until_s.values())) <= now_s:
            self._until_s.popitem(last=False)
        if driver_id in self._until_s:
            raise TooManyRequests(self._until_s[driver_id] - now_s)

    @contextmanager
    def remembered(self, driver_id: str) -> Iterator[None]:
        """Run what the database may refuse. Raises its TooManyRequests, also without running it."""
        self.check(driver_id)
        try:
            yield
        except TooManyRequests:
            self.add(driver_id)
            raise

    def add(self, driver_id: str) -> None:
        """Remember that the database has refused a driver."""
        self._until_s[driver_id] = self._clock() + REMEMBERED_S
        self._until_s.move_to_end(driver_id)
