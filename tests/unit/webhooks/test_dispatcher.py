"""The dispatcher over a queue in memory: what is reported, and when it waits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID

from doorstep.errors import StoreUnavailable
from webhooks.dispatcher import Dispatcher
from webhooks.queue import Attempt, Backlog, Delivery
from webhooks.retries import RetrySchedule

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOOK = UUID(int=1)


def delivery(number: int, attempt: int = 1, first_attempt_at: datetime = NOON) -> Delivery:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    return Delivery(
        number, HOOK, "https://a.example", [secret], f"msg_{number}", "{}", attempt,
        first_attempt_at,
    )  # fmt: skip


class MemoryQueue:
    """Gives out lists of deliveries, one for each claim; an exception is raised."""

    def __init__(self, *claims: list[Delivery] | Exception) -> None:
        self.claims = list(claims)
        self.reports: list[tuple[int, int | None, float | None]] = []
        self.stopping = asyncio.Event()

    async def claim(self, at_most_each: int, lease_s: float) -> list[Delivery]:
        if not self.claims:
            self.stopping.set()
            return []
        claim = self.claims.pop(0)
        if isinstance(claim, Exception):
            raise claim
        return claim

    async def report(
        self, delivery: Delivery, attempt: Attempt, retry_in_s: float | None
    ) -> str | None:
        self.reports.append((delivery.delivery_id, attempt.status, retry_in_s))
        return (
            "delivered" if attempt.is_delivered else "failed" if retry_in_s is None else "retried"
        )

    async def read_backlog(self) -> Backlog:
        return Backlog(0, 0.0)

    async def is_available(self) -> bool:
        return True


class FakeSender:
    """Answers with a status; a delivery in `slow` is answered when `released` is set."""

    def __init__(self, status: int | None, slow: tuple[int, ...] = ()) -> None:
        self.status, self.slow = status, slow
        self.released = asyncio.Event()

    async def send(self, delivery: Delivery) -> Attempt:
        if delivery.delivery_id in self.slow:
            await self.released.wait()
        return Attempt(self.status)

    async def drop_idle_clients(self) -> None: ...


def dispatcher(queue: MemoryQueue, sender: FakeSender, now: datetime = NOON) -> Dispatcher:
    schedule = RetrySchedule(draw=lambda: 0.5)
    return Dispatcher(
        queue, sender, schedule, timeout_s=1.0, concurrency=4, clock=lambda: now
    )  # fmt: skip


async def test_run__claimed_deliveries__are_reported_before_it_ends() -> None:
    queue = MemoryQueue([delivery(1), delivery(2)])
    await dispatcher(queue, FakeSender(200)).run(queue.stopping)
    assert [one[:2] for one in queue.reports] == [(1, 200), (2, 200)]


async def test_run__no_answer__is_retried_after_the_pause() -> None:
    queue = MemoryQueue([delivery(1, attempt=3)])
    await dispatcher(queue, FakeSender(None)).run(queue.stopping)
    assert queue.reports == [(1, None, 45.0)]


async def test_run__a_day_after_the_first_attempt__is_given_up() -> None:
    queue = MemoryQueue([delivery(1, attempt=19)])
    later = NOON.replace(day=30, month=12)
    await dispatcher(queue, FakeSender(500), later).run(queue.stopping)
    assert queue.reports == [(1, 500, None)]


async def test_run__database_is_away__goes_on_when_it_is_back() -> None:
    queue = MemoryQueue(StoreUnavailable(), [delivery(1)])
    running = dispatcher(queue, FakeSender(200))
    await running.run(queue.stopping)
    assert [one[0] for one in queue.reports] == [1]
    assert running.is_healthy


async def test_run__a_slow_receiver__does_not_hold_up_the_others() -> None:
    queue = MemoryQueue([delivery(1), delivery(2)], [delivery(3)])
    sender = FakeSender(200, slow=(1,))
    running = asyncio.create_task(dispatcher(queue, sender).run(queue.stopping))
    await queue.stopping.wait()  # the claims after both
    assert [one[0] for one in queue.reports] == [2, 3]
    sender.released.set()
    await running
    assert [one[0] for one in queue.reports] == [2, 3, 1]
