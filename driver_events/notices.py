"""Decides which orders are late and which couriers nearby, and raises and resolves alerts."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter

from doorstep.store.notices import decide_notices, update_alerts
from driver_events.recorder import Connection

NOTICES = Counter("doorstep_driver_events_notices", "Notices of orders: late, nearby")
ALERTS = Counter(
    "doorstep_driver_events_alerts", "Alerts of the fleet that were raised or resolved"
)
EVERY_S = 5.0  # how late a notice or an alert is, at most
NOTICES_PER_COMMIT = 50  # each holds its order's row until the commit: some 10 ms


class NoticeWorker:
    """Runs both jobs in the database, which also excludes a second process."""

    def __init__(self, connection: Connection, notify: Callable[[], None]) -> None:
        """`notify` is called after a notice: it is in the outbox."""
        self._connection = connection
        self._notify = notify

    def decide(self) -> bool:
        """Run both once; True if there may be more. Raises Unavailable."""
        with self._connection.transaction() as conn:
            written = decide_notices(conn, NOTICES_PER_COMMIT)
        NOTICES.inc(written)
        if written:
            self._notify()
        with self._connection.transaction() as conn:
            ALERTS.inc(update_alerts(conn))
        return written >= NOTICES_PER_COMMIT
