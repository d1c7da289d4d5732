"""The one writer of series: Kafka's topic `series` into series_point, a batch a commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from confluent_kafka import Message

from doorstep.errors import OffsetLost, Unavailable
from doorstep.store import fix_writer
from driver_events import metrics
from driver_events.consumer import NOWHERE, PartitionConsumer, records_of
from driver_events.dead_letter_limit import DeadLetterLimit
from driver_events.recorder import Connection, DataError
from driver_events.series_batch import SeriesBatch, read_series, series_to_dead_letters

MOST_RECORDS = 5000
TAKE_S = 0.25  # how long a calm batch waits to grow; a chart moves once a second
LOOK_EVERY_S = 10.0  # whether the topic is still the one that is read
FORGET_EVERY_S = 3600.0


class SeriesWriter:
    """Takes records and writes them; points, dead letters and offsets stand or fall together."""

    def __init__(
        self,
        source: PartitionConsumer,
        connection: Connection,
        retention: timedelta,
        wake_outbox: Callable[[], None],
        limit: DeadLetterLimit,
    ) -> None:
        self._source = source
        self._connection = connection
        self._retention = retention
        self._wake_outbox = wake_outbox
        self._limit = limit
        self._topic = NOWHERE
        self._looked_at = 0.0

    def write(self) -> bool:
        """Write one batch, if there is any; always True: there may be more. Raises Unavailable."""
        try:
            self._look()
            if self._source.needs_opening:
                with self._connection.transaction() as conn:
                    offsets = fix_writer.open_offsets(conn, *self._topic, self._source.assigned)
                self._source.open(offsets)
            messages = self._source.take(MOST_RECORDS, TAKE_S)
            if messages:
                self._write(messages)
        except OffsetLost:
            self._source.rejoin("series_offset_lost")
        except (Unavailable, DataError):
            self._source.shut()  # what was taken and not written is read again
            raise
        return True

    def close(self) -> None:
        """Leave the group."""
        self._connection.discard()
        self._source.close()

    def _look(self) -> None:
        """Ask which topic is there; a recreated one is read from its beginning."""
        now_s = time.monotonic()
        if now_s - self._looked_at < LOOK_EVERY_S and self._topic != NOWHERE:
            return
        there = self._source.identify()
        if self._topic not in (NOWHERE, there):
            self._source.rejoin("series_topic_recreated")
        self._topic, self._looked_at = there, now_s

    def _write(self, messages: Sequence[Message]) -> None:
        """Write messages; those that the database can't take are halved until one is left."""
        records = records_of(messages)
        try:
            self._commit(messages, read_series(records, self._retention))
        except DataError as exc:
            if len(messages) == 1:
                self._commit(messages, series_to_dead_letters(records, str(exc)))
            else:
                half = len(messages) // 2
                self._write(messages[:half])
                self._write(messages[half:])

    def _commit(self, messages: Sequence[Message], batch: SeriesBatch) -> None:
        moves = self._source.moves_of(messages)
        with self._connection.transaction() as conn:
            batch.settle(fix_writer.record_points(conn, batch.rows) if batch.rows else ())
            letters = self._limit.keep(batch.letters())
            fix_writer.add_dead_letters(conn, letters)
            fix_writer.advance_offsets(conn, *self._topic, moves)
        self._source.advance(moves)
        for outcome, times in batch.outcomes.items():
            metrics.POINTS.labels(outcome).inc(times)
        for letter in letters:
            metrics.DEAD_LETTERS.labels(letter.reason).inc()
        if letters:
            self._wake_outbox()


def forget_old_points(connection: Connection, retention: timedelta) -> Callable[[], bool]:
    """Make the work that drops points past their retention."""

    def forget() -> bool:
        with connection.transaction() as conn:
            gone = fix_writer.expire_points(conn, datetime.now(UTC) - retention)
        connection.discard()  # an hour's idling is no use
        metrics.FORGOTTEN.inc(gone)
        return False

    return forget
