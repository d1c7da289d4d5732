"""After a commit: metrics, live positions, acks, the outbox."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from doorstep.store.records import IncomingRow
from doorstep.telemetry import count_ignored
from driver_events import metrics
from driver_events.batch import Batch, BatchResult, BootKey

LATENCY_SAMPLE = 25  # fixes per batch whose latency is observed: 2 µs each


class PostCommit(Protocol):
    """A listener for committed batches."""

    def on_commit(self, result: BatchResult) -> None:
        """Handle a committed batch. Must not block or raise. Called in one thread."""


def record_metrics(batch: Batch, result: BatchResult) -> None:
    """Update the metrics for one committed batch."""
    metrics.BATCH_FIXES.observe(len(batch.rows))
    for outcome, times in result.outcomes.items():
        metrics.FIXES.labels(outcome).inc(times)
        if outcome == "dropped":
            metrics.OFF_DUTY_DROPPED.inc(times)
    for reason, times in result.reasons.items():
        metrics.REFUSED.labels(reason).inc(times)
    count_ignored(batch.ignored)
    for dead_letter in result.dead_letters:
        metrics.DEAD_LETTERS.labels(dead_letter.reason).inc()
    committed_s = time.time()
    for row in batch.rows[:: 1 + len(batch.rows) // LATENCY_SAMPLE]:
        _, _, _, _, fix_at, received_at, *_ = row
        metrics.COMMIT_LATENCY.labels("received_at").observe(committed_s - received_at.timestamp())
        if fix_at is not None:
            metrics.COMMIT_LATENCY.labels("fix_at").observe(committed_s - fix_at.timestamp())


class CommitFanout:
    """Passes each committed batch to the live feed, the acks and the outbox."""

    def __init__(
        self,
        publish_positions: Callable[[Sequence[IncomingRow]], None],
        request_acks: Callable[[set[BootKey]], None],
        remember_parked: Callable[[set[BootKey]], None],
        wake_outbox: Callable[[], None],
    ) -> None:
        self._publish_positions = publish_positions
        self._request_acks = request_acks
        self._remember_parked = remember_parked
        self._wake_outbox = wake_outbox

    def on_commit(self, result: BatchResult) -> None:
        """Notify each of them."""
        if positions := result.positions():
            self._publish_positions(positions)
        self._request_acks(result.boot_keys())
        if result.parked:
            self._remember_parked(result.parked)
        if result.dead_letters:
            self._wake_outbox()
