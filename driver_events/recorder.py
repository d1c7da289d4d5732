"""Recording one batch: fixes, dead letters and offsets stand or fall together."""

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

# SQLSTATE classes of a value that the database can't take. Anything else that goes wrong (a right
# that is missing, a function that is not there) is ours to mend, and no reason to bury fixes.
DATA_ERRORS = ("22", "23")


class DataError(DoorstepError):
    """The database refused a value in the batch, and so all of it."""


class Connection:
    """A database connection that is opened when needed, and again after it broke."""

    def __init__(self, url: str, application_name: str) -> None:
        self._url = url
        self._application_name = application_name
        self._conn: psycopg.Connection[Any] | None = None

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """Use it for one transaction, which is committed at the end.

        After any error the connection is a new one. Raises DataError, and StoreUnavailable also
        for what is ours to mend (a right that is missing): it is tried again, and said.
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
        """Close the connection, whatever state it is in; its transaction is rolled back."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None


class Recorder(Protocol):
    """Where batches go: the database, or a stand-in in unit tests."""

    def open_offsets(self, topic: TopicIdentity, partitions: Sequence[int]) -> dict[int, int]:
        """Read where each partition goes on. Raises StoreUnavailable."""

    def record(
        self, batch: Batch, topic: TopicIdentity, moves: Mapping[int, tuple[int, int]]
    ) -> BatchResult:
        """Record a batch. Raises StoreUnavailable, OffsetLost, DataError: then nothing is."""

    def discard(self) -> None:
        """Forget the connection and what was not committed on it."""


class DatabaseRecorder:
    """Records through the one write door, `record_fixes`."""

    def __init__(self, url: str, limit: DeadLetterLimit) -> None:
        self._connection = Connection(url, "driver_events")
        self._limit = limit

    def open_offsets(self, topic: TopicIdentity, partitions: Sequence[int]) -> dict[int, int]:
        """Read where each partition goes on; one that was never seen starts at 0."""
        with self._connection.transaction() as conn:
            return fix_writer.open_offsets(conn, topic.cluster_id, topic.topic_id, partitions)

    def record(
        self, batch: Batch, topic: TopicIdentity, moves: Mapping[int, tuple[int, int]]
    ) -> BatchResult:
        """Record a batch in one transaction.

        1. Fixes through `record_fixes`, whose answer names those not simply committed.
        2. Dead letters into the outbox.
        3. Offsets by compare-and-set: they move only from where we read.
        4. One commit.
        """
        with self._connection.transaction() as conn:
            # Step 1
            outcomes = fix_writer.record_fixes(conn, batch.rows) if batch.rows else []
            verdict = classify(batch, outcomes)
            # Step 2
            verdict.letters = self._limit.keep(verdict.letters)
            fix_writer.add_dead_letters(conn, verdict.letters)
            # Step 3
            fix_writer.advance_offsets(conn, topic.cluster_id, topic.topic_id, moves)
            # Step 4: at the end of the block
        return verdict

    def discard(self) -> None:
        """Close the connection; what was not committed is rolled back."""
        self._connection.discard()
