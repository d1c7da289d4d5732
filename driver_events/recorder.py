"""Records one batch: fixes, dead letters and offsets in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import psycopg

from doorstep.errors import DoorstepError, StoreUnavailable
from doorstep.store import fix_writer
from doorstep.store.error_mapping import translated
from doorstep.store.pool import connect
from driver_events.batch import Batch, BatchResult, classify
from driver_events.consumer import TopicIdentity
from driver_events.dead_letter_limit import DeadLetterLimit

# SQLSTATE classes of invalid values. Other errors (a missing privilege or function) are defects of
# the installation: the batch is tried again and no fix becomes a dead letter.
DATA_ERRORS = ("22", "23")


class DataError(DoorstepError):
    """The database refused a value, and with it the whole batch."""


class Connection:
    """A database connection that is opened on demand and reopened after an error."""

    def __init__(self, url: str, application_name: str) -> None:
        self._url = url
        self._application_name = application_name
        self._conn: psycopg.Connection[Any] | None = None

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """Run one transaction, committed at the end of the block.

        Any error closes the connection. Raises DataError, and StoreUnavailable for all other
        database errors, a missing privilege included.
        """
        try:
            if self._conn is None or self._conn.closed:
                self._conn = connect(self._url, application_name=self._application_name)
            yield self._conn
            with translated():
                self._conn.commit()
        except psycopg.Error as exc:
            self.discard()
            if (exc.sqlstate or "").startswith(DATA_ERRORS):
                raise DataError(str(exc)) from exc
            raise StoreUnavailable(f"the database refused: {exc}") from exc
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Close the connection; an open transaction is rolled back."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None


class Recorder(Protocol):
    """Stores batches: the database, or a fake in unit tests."""

    def open_offsets(self, topic: TopicIdentity, partitions: Sequence[int]) -> dict[int, int]:
        """Read the next offset of each partition. Raises StoreUnavailable."""

    def record(
        self, batch: Batch, topic: TopicIdentity, offset_ranges: Mapping[int, tuple[int, int]]
    ) -> BatchResult:
        """Record a batch or nothing. Raises StoreUnavailable, OffsetLost, DataError."""

    def discard(self) -> None:
        """Close the connection and roll back."""


class DatabaseRecorder:
    """Records through `record_fixes`, the only write function."""

    def __init__(self, url: str, limit: DeadLetterLimit) -> None:
        self._connection = Connection(url, "driver_events")
        self._limit = limit

    def open_offsets(self, topic: TopicIdentity, partitions: Sequence[int]) -> dict[int, int]:
        """Read the next offset of each partition; an unknown one starts at 0."""
        with self._connection.transaction() as conn:
            return fix_writer.open_offsets(conn, topic.cluster_id, topic.topic_id, partitions)

    def record(
        self, batch: Batch, topic: TopicIdentity, offset_ranges: Mapping[int, tuple[int, int]]
    ) -> BatchResult:
        """Record a batch in one transaction.

        1. Fixes through `record_fixes`, which returns those with another outcome than committed.
        2. Dead letters into the outbox.
        3. Offsets by compare-and-set: each moves only from the offset that was read.
        4. One commit.
        """
        with self._connection.transaction() as conn:
            # Step 1
            outcomes = fix_writer.record_fixes(conn, batch.rows) if batch.rows else []
            result = classify(batch, outcomes)
            # Step 2
            result.dead_letters = self._limit.keep(result.dead_letters)
            fix_writer.add_dead_letters(conn, result.dead_letters)
            # Step 3
            fix_writer.advance_offsets(conn, topic.cluster_id, topic.topic_id, offset_ranges)
            # Step 4 is the end of the block
        return result

    def discard(self) -> None:
        """Close the connection and roll back."""
        self._connection.discard()
