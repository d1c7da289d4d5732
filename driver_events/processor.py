"""The processing loop: read records, commit them in batches, notify listeners."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import NamedTuple

from confluent_kafka import Message

from doorstep.errors import (
    ClockStepped,
    DoorstepError,
    KafkaUnavailable,
    OffsetLost,
    StoreUnavailable,
)
from doorstep.telemetry import get_logger
from driver_events import metrics
from driver_events.arrivals import ArrivalTimes
from driver_events.batch import (
    RECORDS_PER_DECODE,
    Batch,
    BatchResult,
    decode_batch,
    to_dead_letters,
)
from driver_events.consumer import UNKNOWN_TOPIC, PartitionConsumer
from driver_events.post_commit import PostCommit, record_metrics
from driver_events.rate_monitor import RateMonitor
from driver_events.recorder import DataError, Recorder

MAX_BACKOFF_S = 2.0  # between two attempts while the database or Kafka is unavailable
MAX_BATCH_AGE_S = 0.12  # unless the previous batch is in flight for longer
IN_FLIGHT_POLL_S = 0.01  # between two checks whether the batch in flight has finished
RECORDS_PER_STEP = 100  # decoded between two such checks: 3 ms if each is an array of five

OffsetRanges = Mapping[int, tuple[int, int]]


class _InFlightBatch(NamedTuple):
    """A batch that is being committed. `future` returns the result and the seconds it took."""

    messages: Sequence[Message]
    batch: Batch
    offset_ranges: OffsetRanges
    future: Future[tuple[BatchResult, float]]
    attempt: int


class Processor:
    """Commits records in batches: small ones at low load, large ones when behind.

    At most one batch is in flight: a separate thread commits it while the next one grows. The next
    one starts when it has finished, because its offsets follow from it. So a slower database gets
    larger batches, which cost less per fix. Listeners are notified after the next batch starts, so
    that the database does not idle meanwhile.

    After any error the records read since are discarded and read again from the offsets in the
    database, so a commit whose answer was lost is neither repeated nor skipped. While the database
    is unavailable or the clock not trusted, partitions are unassigned and the group membership is
    kept.
    """

    def __init__(
        self,
        consumer: PartitionConsumer,
        recorder: Recorder,
        post_commit: PostCommit,
        *,
        max_batch_fixes: int,
        max_batch_age_s: float,
    ) -> None:
        self._consumer = consumer
        self._recorder = recorder
        self._post_commit = post_commit
        self._max_batch_fixes = max_batch_fixes
        self._max_batch_age_s = self._target_age_s = max_batch_age_s
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._in_flight: _InFlightBatch | None = None
        self._started_s = 0.0  # when the newest batch was submitted
        self._pending_notifications: list[tuple[Batch, BatchResult]] = []
        self._discard_batch()
        self._log = get_logger()
        self._backoff_s = 0.0
        self._rate_monitor = RateMonitor()
        self._arrivals = ArrivalTimes(consumer.check_clock)
        self.topic = UNKNOWN_TOPIC
        self.last_run_s = time.monotonic()
        consumer.on_leave = self._on_leave
        consumer.on_preceding = self._arrivals.committed

    def run(self, stopping: threading.Event, check: Callable[[], None]) -> None:
        """Process until `stopping`. `check` raises the exception of a failed thread."""
        while not stopping.is_set():
            check()
            self.step()
        self.close()

    def close(self) -> None:
        """Finish the batch in flight and leave the group."""
        with suppress(DoorstepError):  # not committed: the next start reads it again
            self._finish()
        self._notify()
        self._executor.shutdown()
        self._recorder.discard()
        self._consumer.close()

    def step(self) -> None:
        """Run one iteration: read, decode and, when a batch is due, start its commit."""
        self.last_run_s = time.monotonic()
        try:
            if self._consumer.needs_offsets:
                self._finish()
                self._assign_partitions()
            self._grow_batch()
            self._backoff_s = 0.0
            self._rate_monitor.check()
        except OffsetLost:
            self._consumer.rejoin("offset_lost")
        except StoreUnavailable as exc:
            metrics.PAUSES.inc()
            self._back_off("waiting_for_database", exc)
        except KafkaUnavailable as exc:
            self._back_off("waiting_for_kafka", exc)
        except ClockStepped as exc:
            self._back_off("waiting_for_clock", exc)
        finally:
            self._notify()

    def rejoin(self, reason: str) -> None:
        """Leave the group and join it again."""
        self._consumer.rejoin(reason)

    def _assign_partitions(self) -> None:
        self._discard_batch()
        self.topic = self._consumer.identify()
        offsets = self._recorder.open_offsets(self.topic, self._consumer.assigned)
        self._arrivals.resume(offsets)
        self._consumer.assign(offsets)
        self._log.info("reading", offsets=offsets)

    def _back_off(self, event: str, error: Exception) -> None:
        if self._backoff_s == 0.0:
            self._log.warning(event, error=str(error))
        self._backoff_s = min(MAX_BACKOFF_S, 2 * self._backoff_s or 0.25)
        self._consumer.unassign()
        self._consumer.consume(1, self._backoff_s)  # returns nothing; keeps the membership

    def _discard_batch(self) -> None:
        """Discard the records read and not in flight."""
        self._undecoded: list[Message] = []
        self._messages: list[Message] = []  # of `_batch`
        self._batch = Batch()

    def _grow_batch(self) -> None:
        """Read and decode; start the batch once it is full or old and none is in flight."""
        if not self._undecoded:
            limit = min(RECORDS_PER_DECODE, self._max_batch_fixes)
            self._undecoded = self._consumer.consume(limit, self._poll_timeout_s())
        is_idle = not self._undecoded
        self._decode()
        is_full = len(self._batch.rows) >= self._max_batch_fixes
        if is_full or is_idle or (self._in_flight and self._in_flight.future.done()):
            self._finish()
        is_old = time.monotonic() - self._started_s >= self._target_age_s
        if self._in_flight is None and self._messages and (is_full or is_old):
            messages, batch = self._messages, self._batch
            self._messages, self._batch = [], Batch()
            self._start(messages, batch)

    def _poll_timeout_s(self) -> float:
        if self._in_flight is not None:
            return IN_FLIGHT_POLL_S
        left_s = self._started_s + self._target_age_s - time.monotonic()
        return left_s if left_s > 0 else self._max_batch_age_s

    def _decode(self) -> None:
        known = len(self._batch.records)
        part = self._arrivals.records_of(self._undecoded[:RECORDS_PER_STEP])
        decode_batch(part, self._max_batch_fixes, self._batch)
        fresh = len(self._batch.records) - known
        self._messages += self._undecoded[:fresh]
        self._undecoded = self._undecoded[fresh:]

    def _start(self, messages: Sequence[Message], batch: Batch, attempt: int = 1) -> None:
        offset_ranges = self._consumer.offset_ranges_of(messages)
        self._started_s = time.monotonic()
        future = self._executor.submit(self._record, batch, offset_ranges)
        self._in_flight = _InFlightBatch(messages, batch, offset_ranges, future, attempt)

    def _record(self, batch: Batch, offset_ranges: OffsetRanges) -> tuple[BatchResult, float]:
        """Commit a batch in the recorder's thread; return the result and the seconds it took."""
        started_s = time.monotonic()
        result = self._recorder.record(batch, self.topic, offset_ranges)
        return result, time.monotonic() - started_s

    def _on_leave(self) -> None:
        self._discard_batch()
        if self._in_flight is not None:
            wait([self._in_flight.future])

    def _finish(self) -> None:
        """Wait for the batch in flight. Raises StoreUnavailable, OffsetLost: it is not stored.

        The next batch grows for twice as long as this one took to commit, at most 120 ms: larger
        batches would cost no less per fix.
        """
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is None:
            return
        try:
            result, took_s = in_flight.future.result()
        except DataError as exc:
            # Partitions that were revoked meanwhile are read again by their new owner.
            if self._consumer.owns(in_flight.offset_ranges):
                self._bisect(in_flight, exc)
        else:
            self._target_age_s = max(self._max_batch_age_s, min(MAX_BATCH_AGE_S, 2 * took_s))
            self._consumer.advance(in_flight.offset_ranges, len(in_flight.messages))
            self._arrivals.committed(in_flight.messages)
            metrics.BATCH_S.observe(took_s)
            self._pending_notifications.append((in_flight.batch, result))

    def _notify(self) -> None:
        """Notify the listeners of committed batches."""
        committed, self._pending_notifications = self._pending_notifications, []
        for batch, result in committed:
            self._post_commit.on_commit(result)
            record_metrics(batch, result)
            self._rate_monitor.count(batch.rows)

    def _bisect(self, in_flight: _InFlightBatch, error: DataError) -> None:
        """Commit the halves of a batch that the database refused, down to one record."""
        messages, batch = in_flight.messages, in_flight.batch
        self._log.error("data_error", error=str(error), records=len(messages))
        half = len(messages) // 2
        if half:
            for part in (slice(None, half), slice(half, None)):
                rows = decode_batch(batch.records[part], len(batch.rows) + 1)
                self._start(messages[part], rows)
                self._finish()
        else:  # a concurrent PATCH may have caused it: try once more
            batch = batch if in_flight.attempt == 1 else to_dead_letters(batch, str(error))
            self._start(messages, batch, in_flight.attempt + 1)
            self._finish()
