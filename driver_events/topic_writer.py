"""Writes a topic with a consumer of its own: one commit per batch, with its offsets."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import psycopg
from confluent_kafka import Message

from doorstep.errors import OffsetLost, Unavailable
from doorstep.store import fix_writer
from driver_events.arrivals import ArrivalTimes
from driver_events.consumer import UNKNOWN_TOPIC, PartitionConsumer
from driver_events.recorder import Connection, DataError

POLL_TIMEOUT_S = 0.25  # how long a batch grows at low load
CHECK_TOPIC_EVERY_S = 10.0  # to detect a recreated topic

B = TypeVar("B")  # a decoded batch
R = TypeVar("R")  # what its transaction returned


class TopicWriter(ABC, Generic[B, R]):
    """Reads, decodes and commits batches. `name` begins the reasons of its rejoins."""

    name: str
    max_records: int

    def __init__(self, consumer: PartitionConsumer, connection: Connection) -> None:
        self._consumer = consumer
        self._connection = connection
        self._arrivals = ArrivalTimes(consumer.check_clock)
        consumer.on_preceding = self._arrivals.committed
        self._topic = UNKNOWN_TOPIC
        self._checked_at_s = 0.0

    @abstractmethod
    def decode(self, messages: Sequence[Message]) -> B:
        """Decode a batch."""

    @abstractmethod
    def refuse(self, messages: Sequence[Message], batch: B, reason: str) -> B:
        """Return the batch of one message that the database refuses, as dead letters."""

    @abstractmethod
    def record(self, conn: psycopg.Connection[Any], batch: B) -> R:
        """Write a batch and its dead letters, in the transaction of its offsets."""

    @abstractmethod
    def committed(self, batch: B, result: R) -> None:
        """Count and publish what was committed."""

    def write_batch(self) -> bool:
        """Write one batch, if there is one. Always True: there may be more. Raises Unavailable."""
        try:
            self._check_topic()
            if self._consumer.needs_offsets:
                with self._connection.transaction() as conn:
                    offsets = fix_writer.open_offsets(conn, *self._topic, self._consumer.assigned)
                self._arrivals.resume(offsets)
                self._consumer.assign(offsets)
            messages = self._consumer.consume(self.max_records, POLL_TIMEOUT_S)
            if messages:
                self._write(messages)
        except OffsetLost:
            self._consumer.rejoin(f"{self.name}_offset_lost")
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
            self._consumer.rejoin(f"{self.name}_topic_recreated")
        self._topic, self._checked_at_s = current, now_s

    def _write(self, messages: Sequence[Message]) -> None:
        """Write messages; a refused batch is bisected down to one message."""
        batch = self.decode(messages)
        try:
            self._commit(messages, batch)
        except DataError as exc:
            if len(messages) == 1:
                self._commit(messages, self.refuse(messages, batch, str(exc)))
            else:
                half = len(messages) // 2
                self._write(messages[:half])
                self._write(messages[half:])

    def _commit(self, messages: Sequence[Message], batch: B) -> None:
        offset_ranges = self._consumer.offset_ranges_of(messages)
        with self._connection.transaction() as conn:
            result = self.record(conn, batch)
            fix_writer.advance_offsets(conn, *self._topic, offset_ranges)
        self._consumer.advance(offset_ranges, len(messages))
        self._arrivals.committed(messages)
        self.committed(batch, result)
