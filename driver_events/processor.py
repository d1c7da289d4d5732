"""The loop: take records, record them, tell whoever waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from confluent_kafka import Message

from doorstep.errors import OffsetLost, StoreUnavailable
from doorstep.store.rows import IncomingRow
from doorstep.telemetry import get_logger
from driver_events import metrics
from driver_events.batch import Batch, Pair, Record, Verdict, bury, read_batch
from driver_events.meter import Meter
from driver_events.recorder import DataError, Recorder
from driver_events.source import NOWHERE, KafkaUnavailable, Source, records_of

MOST_WAIT_S = 2.0  # between two tries, while the database or Kafka is away
LATENCY_SAMPLE = 25  # fixes of a batch whose latency is noted: 2 µs each


class Aftermath(Protocol):
    """Who is told of a committed batch: the live feed, the devices, the outbox."""

    def follow(self, verdict: Verdict) -> None:
        """Take note of what was committed. Must not block or fail."""


class Processor:
    """Takes small batches when calm and large ones when behind; each is one commit.

    When the database is away, partitions are paused and the group is kept. Once it is back, its
    offsets say where to go on: so a commit whose answer got lost is neither repeated nor skipped.
    """

    def __init__(
        self,
        source: Source,
        recorder: Recorder,
        aftermath: Aftermath,
        *,
        max_batch_fixes: int,
        max_batch_age_s: float,
    ) -> None:
        self._source = source
        self._recorder = recorder
        self._aftermath = aftermath
        self._max_batch_fixes = max_batch_fixes
        self._max_batch_age_s = max_batch_age_s
        self._log = get_logger()
        self._wait_s = 0.0
        self._meter = Meter()
        self.topic = NOWHERE
        self.turned_at = time.monotonic()

    def run(self, stopping: threading.Event, check: Callable[[], None]) -> None:
        """Process until `stopping`. `check` raises what a thread has died of."""
        while not stopping.is_set():
            check()
            self.step()
        self._recorder.discard()
        self._source.close()

    def step(self) -> None:
        """Record one batch, or find out why not and wait a little."""
        self.turned_at = time.monotonic()
        try:
            if self._source.needs_opening:
                self._open()
            messages = self._source.take(self._max_batch_fixes, self._max_batch_age_s)
            if messages:
                self._record(messages)
            self._wait_s = 0.0
            self._meter.check()
        except OffsetLost:
            self._source.rejoin("offset_lost")
        except StoreUnavailable as exc:
            metrics.PAUSES.inc()
            self._wait("waiting_for_database", exc)
        except KafkaUnavailable as exc:
            self._wait("waiting_for_kafka", exc)

    def start_over(self, why: str) -> None:
        """Join the group anew: the topic is another one than it was."""
        self._source.rejoin(why)

    def _open(self) -> None:
        self.topic = self._source.identify()
        offsets = self._recorder.open_offsets(self.topic, self._source.assigned)
        self._source.open(offsets)
        self._log.info("reading", offsets=offsets)

    def _wait(self, event: str, error: Exception) -> None:
        if self._wait_s == 0.0:
            self._log.warning(event, error=str(error))
        self._wait_s = min(MOST_WAIT_S, 2 * self._wait_s or 0.25)
        self._source.shut()
        self._source.take(1, self._wait_s)  # nothing comes, but we stay in the group

    def _record(self, messages: Sequence[Message]) -> None:
        records = records_of(messages)
        at = 0
        while at < len(records):
            batch = read_batch(records[at:], self._max_batch_fixes)
            size = len(batch.records)
            self._commit(messages[at : at + size], batch)
            at += size

    def _commit(self, messages: Sequence[Message], batch: Batch, *, again: bool = True) -> None:
        """Commit one batch; one that the database can't take is halved until one record is left."""
        moves = self._source.moves_of(messages)
        started_s = time.monotonic()
        try:
            verdict = self._recorder.record(batch, self.topic, moves)
        except DataError as exc:
            self._log.error("data_error", error=str(exc), records=len(messages))
            if len(messages) == 1 and again:  # two doors at once may have been the reason
                self._commit(messages, batch, again=False)
            elif len(messages) == 1:
                self._commit(messages, bury(batch, str(exc)))
            else:
                half = len(messages) // 2
                for part in (slice(None, half), slice(half, None)):
                    records: Sequence[Record] = batch.records[part]
                    self._commit(messages[part], read_batch(records, len(batch.rows) + 1))
            return
        self._source.advance(moves)
        self._aftermath.follow(verdict)
        count(batch, verdict)
        self._meter.note(batch.rows)
        metrics.BATCH_S.observe(time.monotonic() - started_s)


def count(batch: Batch, verdict: Verdict) -> None:
    """Count one committed batch."""
    metrics.BATCH_FIXES.observe(len(batch.rows))
    for outcome, times in verdict.outcomes.items():
        metrics.FIXES.labels(outcome).inc(times)
    for reason, times in verdict.reasons.items():
        metrics.REFUSED.labels(reason).inc(times)
    for letter in verdict.letters:
        metrics.DEAD_LETTERS.labels(letter.reason).inc()
    committed_s = time.time()
    for row in batch.rows[:: 1 + len(batch.rows) // LATENCY_SAMPLE]:
        _, _, _, _, fix_at, received_at, *_ = row
        metrics.COMMIT_LATENCY.labels("received_at").observe(committed_s - received_at.timestamp())
        if fix_at is not None:
            metrics.COMMIT_LATENCY.labels("fix_at").observe(committed_s - fix_at.timestamp())


class Everyone:
    """The aftermath of a running service: the live feed, the devices, the outbox."""

    def __init__(
        self,
        publish: Callable[[Sequence[IncomingRow]], None],
        note: Callable[[set[Pair]], None],
        note_parked: Callable[[set[Pair]], None],
        wake_outbox: Callable[[], None],
    ) -> None:
        self._publish = publish
        self._note = note
        self._note_parked = note_parked
        self._wake_outbox = wake_outbox

    def follow(self, verdict: Verdict) -> None:
        """Tell each of them."""
        if verdict.positions:
            self._publish(verdict.positions)
        self._note(verdict.pairs)
        if verdict.parked:
            self._note_parked(verdict.parked)
        if verdict.letters:
            self._wake_outbox()
