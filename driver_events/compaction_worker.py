"""Packs the history's sealed days in the background."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import psycopg

from doorstep.errors import StoreUnavailable
from doorstep.store.compaction import ChunkMismatch, CompactionLocked, Compactor, oldest_unread_at
from doorstep.store.pool import connect
from doorstep.telemetry import get_logger
from driver_events import metrics
from driver_events.settings import DriverEventsSettings

EVERY_S = 3600.0


class CompactionWorker:
    """Runs compaction hourly at half speed: it pauses as long as each slice of work took."""

    def __init__(self, settings: DriverEventsSettings, rest: Callable[[float], bool]) -> None:
        """`rest` sleeps for so many seconds and returns False when the service stops."""
        self._settings = settings
        self._rest = rest
        self._log = get_logger(worker="history")

    def run(self) -> bool:
        """Pack sealed days and delete expired ones. Raises Unavailable."""
        url = self._settings.database_url.get_secret_value()
        try:
            with closing(connect(url, application_name="driver_events history")) as conn:
                self._compact(Compactor(conn))
        except CompactionLocked:  # another driver_events, or ./run compact
            return False
        except ChunkMismatch as exc:  # the day stays unpacked: no fix is lost
            self._log.error("chunk_mismatch", error=str(exc))
        except psycopg.Error as exc:
            raise StoreUnavailable(f"the database refused: {exc}") from exc
        return False

    def _compact(self, compactor: Compactor) -> None:
        settings = self._settings
        plan = compactor.plan(None)
        if plan.days:  # unread records may belong to these days
            unread = oldest_unread_at(compactor.conn, settings.kafka, settings.kafka_topic)
            plan = compactor.plan(unread)
        done = compactor.run(plan, rest=self._rest)
        if done.days or done.expired:
            metrics.PACKED.inc(done.fixes)
            self._log.info(
                "history_compacted",
                days=done.days,
                fixes=done.fixes,
                expired=done.expired,
                sealed_before=plan.before.isoformat(),
                held_by=plan.held_by,
            )
