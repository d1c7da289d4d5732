"""Writes series points: the topic `series` into series_point, one commit per batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from confluent_kafka import Message

from doorstep.errors import OffsetLost, Unavailable
from doorstep.store import fix_writer
from driver_events import metrics
from driver_events.consumer import UNKNOWN_TOPIC, PartitionConsumer, records_of
from driver_events.dead_letter_limit import DeadLetterLimit
from driver_events.recorder import Connection, DataError
from driver_events.series_batch import SeriesBatch, decode_series, series_to_dead_letters

MAX_RECORDS = 5000
POLL_TIMEOUT_S = 0.25  # how long a batch grows at low load; charts update once a second
CHECK_TOPIC_EVERY_S = 10.0  # to detect a recreated topic
EXPIRE_EVERY_S = 3600.0


class SeriesWriter:
    """Writes batches of points, with dead letters and offsets in the same transaction."""

    def __init__(
        self,
        consumer: PartitionConsumer,
        connection: Connection,
        retention: timedelta,
        wake_outbox: Callable[[], None],
        limit: DeadLetterLimit,
    ) -> None:
        self._consumer = consumer
        self._connection = connection
        self._retention = retention
        self._wake_outbox = wake_outbox
        self._limit = limit
        self._topic = UNKNOWN_TOPIC
        self._checked_at_s = 0.0

    def write_batch(self) -> bool:
        """Write one batch, if there is one. Always True: there may be more. Raises Unavailable."""
        try:
            self._check_topic()
            if self._consumer.needs_offsets:
                with self._connection.transaction() as conn:
                    offsets = fix_writer.open_offsets(conn, *self._topic, self._consumer.assigned)
                self._consumer.assign(offsets)
            messages = self._consumer.consume(MAX_RECORDS, POLL_TIMEOUT_S)
            if messages:
                self._write(messages)
        except OffsetLost:
            self._consumer.rejoin("series_offset_lost")
        except (Unavailable, DataError):
            self._consumer.unassign()  # unwritten records are read again
            raise
        return True

    def close(self) -> None:
        """Leave the group."""
        self._connection.discard()
        self._consumer.close()

    def _check_topic(self) -> None:
        """Detect a recreated topic, which is read from its beginning."""
        now_s = time.monotonic()
        if now_s - self._checked_at_s < CHECK_TOPIC_EVERY_S and self._topic != UNKNOWN_TOPIC:
            return
        current = self._consumer.identify()
        if self._topic not in (UNKNOWN_TOPIC, current):
            self._consumer.rejoin("series_topic_recreated")
        self._topic, self._checked_at_s = current, now_s

    def _write(self, messages: Sequence[Message]) -> None:
        """Write messages; a refused batch is bisected down to one message."""
        records = records_of(messages)
        try:
            self._commit(messages, decode_series(records, self._retention))
        except DataError as exc:
            if len(messages) == 1:
                self._commit(messages, series_to_dead_letters(records, str(exc)))
            else:
                half = len(messages) // 2
                self._write(messages[:half])
                self._write(messages[half:])

    def _commit(self, messages: Sequence[Message], batch: SeriesBatch) -> None:
        offset_ranges = self._consumer.offset_ranges_of(messages)
        with self._connection.transaction() as conn:
            batch.apply_outcomes(fix_writer.record_points(conn, batch.rows) if batch.rows else ())
            dead_letters = self._limit.keep(batch.dead_letters())
            fix_writer.add_dead_letters(conn, dead_letters)
            fix_writer.advance_offsets(conn, *self._topic, offset_ranges)
        self._consumer.advance(offset_ranges)
        for outcome, times in batch.outcomes.items():
            metrics.POINTS.labels(outcome).inc(times)
        for letter in dead_letters:
            metrics.DEAD_LETTERS.labels(letter.reason).inc()
        if dead_letters:
            self._wake_outbox()


def expire_old_points(connection: Connection, retention: timedelta) -> Callable[[], bool]:
    """Return a function that deletes points past their retention."""

    def expire() -> bool:
        with connection.transaction() as conn:
            gone = fix_writer.expire_points(conn, datetime.now(UTC) - retention)
        connection.discard()  # not needed for the next hour
        metrics.POINTS_EXPIRED.inc(gone)
        return False

    return expire
