"""Deletes personal data past their retention in the background, or makes them anonymous."""

from __future__ import annotations

import time
from collections.abc import Callable

from doorstep.store.personal_data import KINDS, expire
from doorstep.telemetry import get_logger
from driver_events import metrics
from driver_events.recorder import Connection

EVERY_S = 3600.0
ROWS_PER_COMMIT = 500  # a transaction of some 10 ms


class RetentionWorker:
    """Expires each kind hourly, at half speed: it pauses as long as each transaction took."""

    def __init__(self, connection: Connection, rest: Callable[[float], bool]) -> None:
        """`rest` sleeps for so many seconds and returns False when the service stops."""
        self._connection = connection
        self._rest = rest
        self._log = get_logger(worker="retention")

    def run(self) -> bool:
        """Expire all that is due. Raises StoreUnavailable."""
        for kind in KINDS:
            expired = self._expire(kind)
            if expired:
                self._log.info("personal_data_expired", kind=kind, rows=expired)
        self._connection.discard()  # not needed for the next hour
        return False

    def _expire(self, kind: str) -> int:
        total = 0
        while True:
            start_s = time.monotonic()
            with self._connection.transaction() as conn:
                expired = expire(conn, kind, ROWS_PER_COMMIT)
            metrics.EXPIRED.labels(kind).inc(expired)
            total += expired
            if expired < ROWS_PER_COMMIT or not self._rest(time.monotonic() - start_s):
                return total
