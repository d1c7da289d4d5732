"""The loop: take records, record them, tell whoever waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import NamedTuple

from confluent_kafka import Message

from doorstep.errors import DoorstepError, OffsetLost, StoreUnavailable
from doorstep.telemetry import get_logger
from driver_events import metrics
from driver_events.batch import READ_AT_ONCE, Batch, BatchResult, read_batch, to_dead_letters
from driver_events.consumer import NOWHERE, KafkaUnavailable, PartitionConsumer, records_of
from driver_events.post_commit import PostCommit, count
from driver_events.rate_monitor import RateMonitor
from driver_events.recorder import DataError, Recorder

MOST_WAIT_S = 2.0  # between two tries, while the database or Kafka is away
MOST_AGE_S = 0.12  # of a batch, unless the one before is in flight for longer
LOOK_EVERY_S = 0.01  # whether the batch in flight has landed
DECODE_AT_ONCE = 100  # records between two such looks: 3 ms if each is an array of five

Moves = Mapping[int, tuple[int, int]]


class _InFlightBatch(NamedTuple):
    """A batch that is being committed for the `times`th time. `landing` says how long it took."""

    messages: Sequence[Message]
    batch: Batch
    moves: Moves
    landing: Future[tuple[BatchResult, float]]
    times: int


class Processor:
    """Takes small batches when calm and large ones when behind; each is one commit.

    One batch is in flight at most: while a thread of its own commits it, the next one grows. Only
    when it has landed do the next one's offsets follow from it, and the next one starts: so the
    slower the database is, the larger its batches, which cost less a fix. Who waits for a commit
    is told of it once the next batch is on its way: the database need not wait for that.

    Whatever goes wrong with a batch, what was taken since is dropped, and read again from where
    the database says: so a commit whose answer got lost is neither repeated nor skipped. When the
    database is away, partitions are paused and the group is kept.
    """

    def __init__(
        self,
        source: PartitionConsumer,
        recorder: Recorder,
        aftermath: PostCommit,
        *,
        max_batch_fixes: int,
        max_batch_age_s: float,
    ) -> None:
        self._source = source
        self._recorder = recorder
        self._aftermath = aftermath
        self._max_batch_fixes = max_batch_fixes
        self._max_batch_age_s = self._age_s = max_batch_age_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._flight: _InFlightBatch | None = None
        self._started_s = 0.0  # when the newest flight did
        self._pending_notifications: list[tuple[Batch, BatchResult]] = []
        self._drop()
        self._log = get_logger()
        self._wait_s = 0.0
        self._meter = RateMonitor()
        self.topic = NOWHERE
        self.turned_at = time.monotonic()
        # Whoever gets our partitions asks the database where they go on.
        source.before_leaving = self._leave_partitions

    def run(self, stopping: threading.Event, check: Callable[[], None]) -> None:
        """Process until `stopping`. `check` raises what a thread has died of."""
        while not stopping.is_set():
            check()
            self.step()
        self.close()

    def close(self) -> None:
        """Let the batch in flight land, and leave."""
        with suppress(DoorstepError):  # then the next start goes on where the database says
            self._finish()
        self._notify()
        self._thread.shutdown()
        self._recorder.discard()
        self._source.close()

    def step(self) -> None:
        """Take a batch and let it start, or find out why not and wait a little."""
        self.turned_at = time.monotonic()
        try:
            if self._source.needs_opening:
                self._finish()
                self._open()
            self._take()
            self._wait_s = 0.0
            self._meter.check()
        except OffsetLost:
            self._source.rejoin("offset_lost")
        except StoreUnavailable as exc:
            metrics.PAUSES.inc()
            self._wait("waiting_for_database", exc)
        except KafkaUnavailable as exc:
            self._wait("waiting_for_kafka", exc)
        finally:
            self._notify()

    def start_over(self, why: str) -> None:
        """Join the group anew: the topic is another one than it was."""
        self._source.rejoin(why)

    def _open(self) -> None:
        self._drop()
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

    # ---- the batch that grows ---------------------------------------------------------------

    def _drop(self) -> None:
        """Forget what was taken and is not in flight."""
        self._taken: list[Message] = []  # not decoded yet
        self._messages: list[Message] = []  # of `_batch`
        self._batch = Batch()

    def _take(self) -> None:
        """Let the batch grow, and start once it is old or full and the one before has landed."""
        if not self._taken:
            most = min(READ_AT_ONCE, self._max_batch_fixes)
            self._taken = self._source.take(most, self._patience_s())
        is_quiet = not self._taken
        self._decode()
        is_full = len(self._batch.rows) >= self._max_batch_fixes
        if is_full or is_quiet or (self._flight and self._flight.landing.done()):
            self._finish()
        is_old = time.monotonic() - self._started_s >= self._age_s
        if self._flight is None and self._messages and (is_full or is_old):
            messages, batch = self._messages, self._batch
            self._messages, self._batch = [], Batch()
            self._start(messages, batch)

    def _patience_s(self) -> float:
        if self._flight is not None:
            return LOOK_EVERY_S
        rest_s = self._started_s + self._age_s - time.monotonic()
        return rest_s if rest_s > 0 else self._max_batch_age_s

    def _decode(self) -> None:
        known = len(self._batch.records)
        part = records_of(self._taken[:DECODE_AT_ONCE])
        read_batch(part, self._max_batch_fixes, self._batch)
        fresh = len(self._batch.records) - known
        self._messages += self._taken[:fresh]
        self._taken = self._taken[fresh:]

    # ---- one batch in flight ----------------------------------------------------------------

    def _start(self, messages: Sequence[Message], batch: Batch, times: int = 1) -> None:
        moves = self._source.moves_of(messages)
        self._started_s = time.monotonic()
        landing = self._thread.submit(self._record, batch, moves)
        self._flight = _InFlightBatch(messages, batch, moves, landing, times)

    def _record(self, batch: Batch, moves: Moves) -> tuple[BatchResult, float]:
        """Commit a batch, in the recorder's thread; say too how long it took."""
        started_s = time.monotonic()
        verdict = self._recorder.record(batch, self.topic, moves)
        return verdict, time.monotonic() - started_s

    def _leave_partitions(self) -> None:
        self._drop()
        if self._flight is not None:
            wait([self._flight.landing])

    def _finish(self) -> None:
        """Wait for the batch in flight. Raises StoreUnavailable, OffsetLost: then it is not stored.

        The next one grows for twice as long as this one took to commit, up to 120 ms, so that the
        database rests half its time until batches are as large as pays.
        """
        flight, self._flight = self._flight, None
        if flight is None:
            return
        try:
            verdict, took_s = flight.landing.result()
        except DataError as exc:
            if self._source.holds(flight.moves):  # else whoever has them now reads them again
                self._halve(flight, exc)
        else:
            self._age_s = max(self._max_batch_age_s, min(MOST_AGE_S, 2 * took_s))
            self._source.advance(flight.moves)
            metrics.BATCH_S.observe(took_s)
            self._pending_notifications.append((flight.batch, verdict))

    def _notify(self) -> None:
        """Tell whoever waits for it of what has landed."""
        pending_notifications, self._pending_notifications = self._pending_notifications, []
        for batch, verdict in pending_notifications:
            self._aftermath.follow(verdict)
            count(batch, verdict)
            self._meter.note(batch.rows)

    def _halve(self, flight: _InFlightBatch, error: DataError) -> None:
        """Commit the parts of a batch that the database can't take, until one record is left."""
        messages, batch = flight.messages, flight.batch
        self._log.error("data_error", error=str(error), records=len(messages))
        half = len(messages) // 2
        if half:
            for part in (slice(None, half), slice(half, None)):
                half_batch = read_batch(batch.records[part], len(batch.rows) + 1)
                self._start(messages[part], half_batch)
                self._finish()
        else:  # two doors at once may have been the reason: once more
            buried = batch if flight.times == 1 else to_dead_letters(batch, str(error))
            self._start(messages, buried, flight.times + 1)
            self._finish()
