"""Takes due deliveries from the queue and makes their attempts, each in a task of its own.

The database gives out at most WEBHOOK_CONCURRENCY deliveries of a webhook at a time, so that a slow
receiver delays only its own. A process that dies leaves its deliveries in the queue; they are due
again when their lease ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from doorstep.errors import DoorstepError
from doorstep.telemetry import get_logger
from webhooks import metrics
from webhooks.queue import Attempt, Delivery, Queue
from webhooks.retries import RetrySchedule

EVERY_S = 0.5  # how late a due delivery is sent, at most
BACKLOG_EVERY_S = 15.0
REPORT_WITHIN_S = 5.0  # above the 4 s within which the database answers or fails


class AttemptMaker(Protocol):
    """Makes attempts: the Sender, or a fake in unit tests."""

    async def send(self, delivery: Delivery) -> Attempt: ...

    async def drop_idle_clients(self) -> None: ...


class Dispatcher:
    """Runs until `stopping`, then waits for the attempts under way."""

    def __init__(
        self,
        queue: Queue,
        sender: AttemptMaker,
        schedule: RetrySchedule,
        *,
        timeout_s: float,
        concurrency: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._queue = queue
        self._sender = sender
        self._schedule = schedule
        self._timeout_s = timeout_s
        self._concurrency = concurrency
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._log = get_logger()
        self.is_healthy = False
        self.last_run_s = time.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Send until `stopping` is set."""
        stopped = asyncio.create_task(stopping.wait())
        backlog_at_s = 0.0
        try:
            while not stopping.is_set():
                self.last_run_s = time.monotonic()
                self._wake.clear()
                if await self._claim() and self.last_run_s - backlog_at_s >= BACKLOG_EVERY_S:
                    backlog_at_s = self.last_run_s
                    await self._measure()
                woken = asyncio.create_task(self._wake.wait())
                await asyncio.wait(
                    {stopped, woken}, timeout=EVERY_S, return_when=asyncio.FIRST_COMPLETED
                )
                woken.cancel()
        finally:
            stopped.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._timeout_s + REPORT_WITHIN_S)

    async def _claim(self) -> bool:
        try:
            lease_s = self._timeout_s + REPORT_WITHIN_S
            found = await self._queue.claim(self._concurrency, lease_s)
        except DoorstepError as exc:
            if self.is_healthy:
                self._log.warning("waiting", error=str(exc))
            self.is_healthy = False
            return False
        self.is_healthy = True
        for delivery in found:
            task = asyncio.create_task(self._deliver(delivery))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    async def _measure(self) -> None:
        try:
            backlog = await self._queue.read_backlog()
        except DoorstepError:
            return
        metrics.PENDING.set(backlog.pending)
        metrics.OLDEST_S.set(backlog.oldest_s)
        await self._sender.drop_idle_clients()

    async def _deliver(self, delivery: Delivery) -> None:
        start_s = time.monotonic()
        attempt = await self._sender.send(delivery)
        metrics.ATTEMPT_S.observe(time.monotonic() - start_s)
        since_first_s = (self._clock() - delivery.first_attempt_at).total_seconds()
        pause_s = self._schedule.pause_s(delivery.attempt, since_first_s, attempt.retry_after_s)
        try:
            outcome = await self._queue.report(delivery, attempt, pause_s)
        except DoorstepError:
            outcome = "unreported"  # sent again when the lease ends
        metrics.ATTEMPTS.labels(outcome or "stale").inc()
        if outcome == "failed":
            self._log.warning("given_up", webhook_id=str(delivery.webhook_id), error=attempt.error)
        self._wake.set()  # the order's next event may be due
