"""Follows time for drivers with several orders: evidence that had to wait, and coarse estimates."""

from __future__ import annotations

from prometheus_client import Counter

from doorstep.store.stops import refresh_order_etas, settle_evidence
from driver_events.recorder import Connection

SETTLED = Counter(
    "doorstep_driver_events_evidence_settled",
    "Drivers whose fixes from the future became evidence when they were past",
)
ESTIMATED = Counter(
    "doorstep_driver_events_order_etas", "Estimates for customers whose stop is not next"
)
EVERY_S = 1.0  # how late evidence is, at most
PER_COMMIT = 100


class StopWorker:
    """Advances what is due in the database, which also excludes a second process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def advance(self) -> bool:
        """Advance what is due, once. Raises Unavailable."""
        with self._connection.transaction() as conn:
            settled = settle_evidence(conn, PER_COMMIT)
        with self._connection.transaction() as conn:
            estimated = refresh_order_etas(conn, PER_COMMIT)
        SETTLED.inc(settled)
        ESTIMATED.inc(estimated)
        return PER_COMMIT in (settled, estimated)
