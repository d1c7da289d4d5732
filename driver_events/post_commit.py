"""What follows a commit: metrics, the live feed, the devices, the outbox."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from doorstep.store.records import IncomingRow
from driver_events import metrics
from driver_events.batch import Batch, BatchResult, Pair

LATENCY_SAMPLE = 25  # fixes of a batch whose latency is noted: 2 µs each


class PostCommit(Protocol):
    """Who is told of a committed batch: the live feed, the devices, the outbox."""

    def follow(self, verdict: BatchResult) -> None:
        """Take note of what was committed. Must not block or fail. Called in one thread."""


def count(batch: Batch, verdict: BatchResult) -> None:
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


class CommitFanout:
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

    def follow(self, verdict: BatchResult) -> None:
        """Tell each of them."""
        if positions := verdict.positions():
            self._publish(positions)
        self._note(verdict.pairs())
        if verdict.parked:
            self._note_parked(verdict.parked)
        if verdict.letters:
            self._wake_outbox()
