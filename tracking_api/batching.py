"""Batches concurrent lookups. A lone request runs immediately. One that comes while a batch is
being loaded waits for its end, with others, for 5 ms at most.

18,000 viewers that reconnect at once, each to its own order, cost some hundred statements. Under
load the rate of statements is limited, so that batches fill up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from doorstep.errors import StoreUnavailable
from doorstep.store.deadline import ANSWER_WITHIN_S, abandon, bounded_by_caller

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_CONCURRENT_BATCHES = 2  # of a pool of 10
PATIENCE_S = 0.005  # some times what a small batch takes
MAX_BATCH_KEYS = 200
BATCHES_PER_S = 50.0  # sustained; without a limit each batch would soon hold one key
BURST = 25  # batches that are not delayed


class BatchLoader(Generic[K, V]):
    """Calls `load` with several keys at a time. No result is older than its request.

    An error is raised to every request of the batch. Without `batches_per_s` a batch holds what
    was requested while two others were being loaded. A batch that takes `within_s` is abandoned:
    its requests get StoreUnavailable, and others are loaded. Its statements have no other deadline.
    """

    def __init__(
        self,
        load: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]],
        batches_per_s: float | None = BATCHES_PER_S,
        within_s: float = ANSWER_WITHIN_S,
    ) -> None:
        self._load = load
        self._within_s = within_s
        self._batches_per_s = batches_per_s
        self._pending: dict[K, asyncio.Future[V | None]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._next_batch_s = 0.0  # by the loop's clock: no batch starts earlier
        self._impatience: asyncio.TimerHandle | None = None

    async def __call__(self, key: K) -> V | None:
        """Return the value of a key, or None."""
        result = self._pending.get(key)
        if result is None:
            result = self._pending[key] = asyncio.get_running_loop().create_future()
            result.add_done_callback(_retrieve_exception)
            if not self._workers:
                self._start_worker()
            elif self._impatience is None and len(self._workers) < MAX_CONCURRENT_BATCHES:
                loop = asyncio.get_running_loop()
                self._impatience = loop.call_later(PATIENCE_S, self._start_another)
        return await asyncio.shield(result)  # a cancelled request does not cancel the others'

    def _start_worker(self) -> None:
        self._workers.add(asyncio.create_task(self._work()))

    async def _work(self) -> None:
        bounded_by_caller.set(True)  # in this task
        worker: asyncio.Task[Any] | None = asyncio.current_task()
        assert worker is not None  # noqa: S101 - for the type checker
        try:
            await self._load_pending(worker)
        finally:
            self._workers.discard(worker)

    def _start_another(self) -> None:
        self._impatience = None
        if self._pending and len(self._workers) < MAX_CONCURRENT_BATCHES:
            self._start_worker()

    async def _load_pending(self, worker: asyncio.Task[Any]) -> None:
        loop = asyncio.get_running_loop()
        while self._pending and worker in self._workers:
            await self._limit_rate()
            keys = list(self._pending)[:MAX_BATCH_KEYS]
            if not keys:
                return  # the other worker has taken them
            results = {key: self._pending.pop(key) for key in keys}
            deadline = loop.call_later(self._within_s, self._abandon, worker, results)
            try:
                found = await self._load(keys)
            except BaseException as exc:
                for result in _unset(results):
                    result.set_exception(exc) if isinstance(exc, Exception) else result.cancel()
                if not isinstance(exc, Exception):
                    raise
            else:
                for key, result in results.items():
                    if not result.done():
                        result.set_result(found.get(key))
            finally:
                deadline.cancel()

    def _abandon(
        self, worker: asyncio.Task[Any], results: Mapping[K, asyncio.Future[V | None]]
    ) -> None:
        for result in _unset(results):
            result.set_exception(StoreUnavailable("the database did not answer in time"))
        self._workers.discard(worker)
        abandon(worker)
        if self._pending:
            self._start_worker()

    async def _limit_rate(self) -> None:
        if self._batches_per_s is None:
            return
        now_s = asyncio.get_running_loop().time()
        start_s = max(self._next_batch_s, now_s - BURST / self._batches_per_s)
        self._next_batch_s = start_s + 1 / self._batches_per_s
        if start_s > now_s:
            await asyncio.sleep(start_s - now_s)


def _unset(results: Mapping[Any, asyncio.Future[V]]) -> list[asyncio.Future[V]]:
    return [result for result in results.values() if not result.done()]


def _retrieve_exception(result: asyncio.Future[V | None]) -> None:
    if not result.cancelled():
        result.exception()  # every request may have been cancelled
