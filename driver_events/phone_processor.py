"""Writes what phone apps send over MQTT: the topic phone-pos.

A processor of its own: one foreign payload would send 500 records of driver-pos to the slow
decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from confluent_kafka import Message

from doorstep.store import fix_writer
from doorstep.store.phones import heard_of_phones
from driver_events import metrics
from driver_events.batch import BatchResult, classify, to_dead_letters
from driver_events.consumer import PartitionConsumer
from driver_events.dead_letter_limit import DeadLetterLimit
from driver_events.phone_batch import PhoneBatch, decode_phones
from driver_events.post_commit import PostCommit, record_metrics
from driver_events.recorder import Connection
from driver_events.topic_writer import TopicWriter

APP = "OwnTracks over MQTT"


class PhoneWriter(TopicWriter[PhoneBatch, BatchResult]):
    """Writes batches of positions, with dead letters and offsets in the same transaction."""

    name = "phones"
    max_records = 1000

    def __init__(
        self,
        consumer: PartitionConsumer,
        connection: Connection,
        post_commit: PostCommit,
        limit: DeadLetterLimit,
    ) -> None:
        super().__init__(consumer, connection)
        self._post_commit = post_commit
        self._limit = limit

    def decode(self, messages: Sequence[Message]) -> PhoneBatch:
        return decode_phones(self._arrivals.records_of(messages))

    def refuse(self, _: Sequence[Message], batch: PhoneBatch, reason: str) -> PhoneBatch:
        return PhoneBatch(to_dead_letters(batch.batch, reason))

    def record(self, conn: psycopg.Connection[Any], batch: PhoneBatch) -> BatchResult:
        fixes = batch.batch
        outcomes = fix_writer.record_fixes(conn, fixes.rows) if fixes.rows else []
        result = classify(fixes, outcomes)
        result.dead_letters = self._limit.keep(result.dead_letters)
        fix_writer.add_dead_letters(conn, result.dead_letters)
        heard_of_phones(conn, batch.heard.values(), APP)
        return result

    def committed(self, batch: PhoneBatch, result: BatchResult) -> None:
        self._post_commit.on_commit(result)
        record_metrics(batch.batch, result)
        for reason, times in batch.ignored.items():
            metrics.PHONES_IGNORED.labels(reason).inc(times)
