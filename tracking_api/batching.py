"""One question for many: what is asked while an answer is awaited goes into the next question.

18,000 viewers that come back at once, each to an order of their own, are some hundred statements
and not 18,000. Who asks alone doesn't wait for company. In a rush the questions keep a pace, so
that they are not one key's each either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

QUESTIONS_AT_ONCE = 2  # of a pool of 10
KEYS_A_QUESTION = 200
QUESTIONS_PER_S = 50.0  # for long: a crowd gathers, where each would soon be alone with its own
BURST = 25  # questions that nobody holds back


class BatchLoader(Generic[K, V]):
    """Asks `ask` for many keys at a time. Nobody gets an answer to an older question than theirs.

    An error goes to everybody whose key was in the question.
    """

    def __init__(self, ask: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._ask = ask
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._next_at_s = 0.0  # of the loop's clock: before it the pace allows no question

    async def __call__(self, key: K) -> V | None:
        """Give what there is under a key, or None."""
        outcome = self._waiting.get(key)
        if outcome is None:
            outcome = self._waiting[key] = asyncio.get_running_loop().create_future()
            outcome.add_done_callback(_seen)
            if len(self._asking) < QUESTIONS_AT_ONCE:
                task = asyncio.create_task(self._ask_until_nobody_waits())
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
        return await asyncio.shield(outcome)  # one who gives up takes nobody along

    async def _ask_until_nobody_waits(self) -> None:
        while self._waiting:
            await self._keep_pace()
            keys = list(self._waiting)[:KEYS_A_QUESTION]
            if not keys:
                return  # the other one has asked for them meanwhile
            outcomes = {key: self._waiting.pop(key) for key in keys}
            try:
                found = await self._ask(keys)
            except BaseException as exc:
                for outcome in outcomes.values():
                    outcome.set_exception(exc) if isinstance(exc, Exception) else outcome.cancel()
                if not isinstance(exc, Exception):
                    raise
            else:
                for key, outcome in outcomes.items():
                    outcome.set_result(found.get(key))

    async def _keep_pace(self) -> None:
        now_s = asyncio.get_running_loop().time()
        began_s = max(self._next_at_s, now_s - BURST / QUESTIONS_PER_S)
        self._next_at_s = began_s + 1 / QUESTIONS_PER_S
        if began_s > now_s:
            await asyncio.sleep(began_s - now_s)


def _seen(outcome: asyncio.Future[V | None]) -> None:
    if not outcome.cancelled():
        outcome.exception()  # perhaps everybody who waited has given up
