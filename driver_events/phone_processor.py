"""Writes what phone apps send over MQTT: the topic phone-pos, one commit per batch.

A processor of its own: one foreign payload would send 500 records of driver-pos to the slow
decoder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import Message

from doorstep.errors import OffsetLost, Unavailable
from doorstep.store import fix_writer
from doorstep.store.phones import heard_of_phones
from driver_events import metrics
from driver_events.batch import classify, to_dead_letters
from driver_events.consumer import UNKNOWN_TOPIC, PartitionConsumer, records_of
from driver_events.dead_letter_limit import DeadLetterLimit
from driver_events.phone_batch import PhoneBatch, decode_phones
from driver_events.post_commit import PostCommit, record_metrics
from driver_events.recorder import Connection, DataError

MAX_RECORDS = 1000
POLL_TIMEOUT_S = 0.25  # how long a batch grows at low load
CHECK_TOPIC_EVERY_S = 10.0  # to detect a recreated topic
APP = "owntracks over MQTT"


class PhoneWriter:
    """Writes batches of positions, with dead letters and offsets in the same transaction."""

    def __init__(
        self,
        consumer: PartitionConsumer,
        connection: Connection,
        post_commit: PostCommit,
        limit: DeadLetterLimit,
    ) -> None:
        self._consumer = consumer
        self._connection = connection
        self._post_commit = post_commit
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
            self._consumer.rejoin("phones_offset_lost")
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
            self._consumer.rejoin("phones_topic_recreated")
        self._topic, self._checked_at_s = current, now_s

    def _write(self, messages: Sequence[Message]) -> None:
        """Write messages; a refused batch is bisected down to one message."""
        decoded = decode_phones(records_of(messages))
        try:
            self._commit(messages, decoded)
        except DataError as exc:
            if len(messages) == 1:
                self._commit(messages, PhoneBatch(to_dead_letters(decoded.batch, str(exc))))
            else:
                half = len(messages) // 2
                self._write(messages[:half])
                self._write(messages[half:])

    def _commit(self, messages: Sequence[Message], decoded: PhoneBatch) -> None:
        batch = decoded.batch
        offset_ranges = self._consumer.offset_ranges_of(messages)
        with self._connection.transaction() as conn:
            outcomes = fix_writer.record_fixes(conn, batch.rows) if batch.rows else []
            result = classify(batch, outcomes)
            result.dead_letters = self._limit.keep(result.dead_letters)
            fix_writer.add_dead_letters(conn, result.dead_letters)
            heard_of_phones(conn, decoded.heard, APP)
            fix_writer.advance_offsets(conn, *self._topic, offset_ranges)
        self._consumer.advance(offset_ranges)
        self._post_commit.on_commit(result)
        record_metrics(batch, result)
        for reason, times in decoded.ignored.items():
            metrics.PHONES_IGNORED.labels(reason).inc(times)
