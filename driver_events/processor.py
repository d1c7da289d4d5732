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
from driver_events.aftermath import Aftermath, count
from driver_events.batch import Batch, Record, bury, read_batch
from driver_events.meter import Meter
from driver_events.recorder import DataError, Recorder
from driver_events.source import NOWHERE, KafkaUnavailable, Source, records_of

MOST_WAIT_S = 2.0  # between two tries, while the database or Kafka is away
MOST_AGE_S = 0.12  # of a batch while the database is busy: 3,000 fixes at 25,000/s

Moves = Mapping[int, tuple[int, int]]


class _Flight(NamedTuple):
    """A batch that is being committed for the `times`th time. `took_s` comes once it is."""

    messages: Sequence[Message]
    batch: Batch
    moves: Moves
    took_s: Future[float]
    times: int


class Processor:
    """Takes small batches when calm and large ones when behind; each is one commit.

    One batch is in flight at most: while a thread of its own commits it, the next is taken and
    decoded. Only when it has landed does the next one's offsets follow from it, and the next one
    start. Whatever goes wrong with it, what was taken since is dropped, and read again from where
    the database says: so a commit whose answer got lost is neither repeated nor skipped. When the
    database is away, partitions are paused and the group is kept.
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
        self._max_batch_age_s = self._age_s = max_batch_age_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._flight: _Flight | None = None
        self._log = get_logger()
        self._wait_s = 0.0
        self._meter = Meter()
        self.topic = NOWHERE
        self.turned_at = time.monotonic()
        # Whoever gets our partitions asks the database where they go on.
        source.before_leaving = self._await_landing

    def run(self, stopping: threading.Event, check: Callable[[], None]) -> None:
        """Process until `stopping`. `check` raises what a thread has died of."""
        while not stopping.is_set():
            check()
            self.step()
        self.close()

    def close(self) -> None:
        """Let the batch in flight land, and leave."""
        with suppress(DoorstepError):  # then the next start goes on where the database says
            self._land()
        self._thread.shutdown()
        self._recorder.discard()
        self._source.close()

    def step(self) -> None:
        """Take a batch and let it start, or find out why not and wait a little."""
        self.turned_at = time.monotonic()
        try:
            if self._source.needs_opening:
                self._land()
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

    def _take(self) -> None:
        """Take messages and decode them, while the batch before is being committed."""
        messages = self._source.take(self._max_batch_fixes, self._age_s)
        records = records_of(messages)
        if not records:
            self._land()
        at = 0
        while at < len(records):
            batch = read_batch(records[at:], self._max_batch_fixes)
            size = len(batch.records)
            self._land()
            self._start(messages[at : at + size], batch)
            at += size

    # ---- one batch in flight ----------------------------------------------------------------

    def _start(self, messages: Sequence[Message], batch: Batch, times: int = 1) -> None:
        moves = self._source.moves_of(messages)
        took_s = self._thread.submit(self._record, batch, moves)
        self._flight = _Flight(messages, batch, moves, took_s, times)

    def _record(self, batch: Batch, moves: Moves) -> float:
        """Commit a batch and tell of it, in the recorder's thread; return how long it took."""
        started_s = time.monotonic()
        verdict = self._recorder.record(batch, self.topic, moves)
        self._aftermath.follow(verdict)
        count(batch, verdict)
        took_s = time.monotonic() - started_s
        metrics.BATCH_S.observe(took_s)
        return took_s

    def _await_landing(self) -> None:
        if self._flight is not None:
            wait([self._flight.took_s])

    def _land(self) -> None:
        """Wait for the batch in flight. Raises StoreUnavailable, OffsetLost: then it is not stored.

        The next batch waits twice as long as this one took to commit: a busy database gets large
        batches, which cost less a fix.
        """
        flight, self._flight = self._flight, None
        if flight is None:
            return
        try:
            took_s = flight.took_s.result()
        except DataError as exc:
            if self._source.holds(flight.moves):  # else whoever has them now reads them again
                self._halve(flight, exc)
        else:
            self._age_s = max(self._max_batch_age_s, min(MOST_AGE_S, 2 * took_s))
            self._source.advance(flight.moves)
            self._meter.note(flight.batch.rows)

    def _halve(self, flight: _Flight, error: DataError) -> None:
        """Commit the parts of a batch that the database can't take, until one record is left."""
        messages, batch = flight.messages, flight.batch
        self._log.error("data_error", error=str(error), records=len(messages))
        half = len(messages) // 2
        if half:
            for part in (slice(None, half), slice(half, None)):
                records: Sequence[Record] = batch.records[part]
                self._start(messages[part], read_batch(records, len(batch.rows) + 1))
                self._land()
        else:  # two doors at once may have been the reason: once more
            buried = batch if flight.times == 1 else bury(batch, str(error))
            self._start(messages, buried, flight.times + 1)
            self._land()
