"""Ends offers that have expired, and offers their orders to the next drivers."""

from __future__ import annotations

from prometheus_client import Counter

from doorstep.store.offers import advance_offers
from driver_events.recorder import Connection

ADVANCED = Counter(
    "doorstep_driver_events_offers_advanced", "Orders whose offers the job has ended or made"
)
EVERY_S = 1.0  # how late an offer ends, at most
ORDERS_PER_COMMIT = 500  # the database stops sooner, after 250 ms


class OfferWorker:
    """Advances offers in the database, which also excludes a second process order by order."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def advance(self) -> bool:
        """Advance what is due, once. Raises Unavailable."""
        with self._connection.transaction() as conn:
            advanced = advance_offers(conn, ORDERS_PER_COMMIT)
        ADVANCED.inc(advanced)
        return advanced == ORDERS_PER_COMMIT
