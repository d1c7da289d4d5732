"""Writes series points: the topic `series` into series_point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from confluent_kafka import Message

from doorstep.store import fix_writer
from doorstep.store.records import DeadLetter
from driver_events import metrics
from driver_events.consumer import PartitionConsumer, records_of
from driver_events.dead_letter_limit import DeadLetterLimit
from driver_events.recorder import Connection
from driver_events.series_batch import SeriesBatch, decode_series, series_to_dead_letters
from driver_events.topic_writer import TopicWriter

EXPIRE_EVERY_S = 3600.0


class SeriesWriter(TopicWriter[SeriesBatch, Sequence[DeadLetter]]):
    """Writes batches of points, with dead letters and offsets in the same transaction."""

    name = "series"
    max_records = 5000

    def __init__(
        self,
        consumer: PartitionConsumer,
        connection: Connection,
        retention: timedelta,
        wake_outbox: Callable[[], None],
        limit: DeadLetterLimit,
    ) -> None:
        super().__init__(consumer, connection)
        self._retention = retention
        self._wake_outbox = wake_outbox
        self._limit = limit

    def decode(self, messages: Sequence[Message]) -> SeriesBatch:
        return decode_series(self._arrivals.records_of(messages), self._retention)

    def refuse(self, messages: Sequence[Message], _: SeriesBatch, reason: str) -> SeriesBatch:
        return series_to_dead_letters(records_of(messages), reason)

    def record(self, conn: psycopg.Connection[Any], batch: SeriesBatch) -> Sequence[DeadLetter]:
        batch.apply_outcomes(fix_writer.record_points(conn, batch.rows) if batch.rows else ())
        dead_letters = self._limit.keep(batch.dead_letters())
        fix_writer.add_dead_letters(conn, dead_letters)
        return dead_letters

    def committed(self, batch: SeriesBatch, dead_letters: Sequence[DeadLetter]) -> None:
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
