"""One question for many: what is asked while an answer is awaited goes into the next question.

18,000 viewers that come back at once, each to an order of their own, are some hundred statements
and not 18,000. Who asks alone doesn't wait for company; an asker rests after each question, so that
in a rush the next is not one key's either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

QUESTIONS_AT_ONCE = 2  # of a pool of 10
KEYS_A_QUESTION = 200
PAUSE_S = 0.03  # after a question: a crowd gathers, where each would soon be alone with its own


class Together(Generic[K, V]):
    """Asks `ask` for many keys at a time. Nobody gets an answer to an older question than theirs.

    An error goes to everybody whose key was in the question.
    """

    def __init__(self, ask: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._ask = ask
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._asking: set[asyncio.Task[None]] = set()

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
            keys = list(self._waiting)[:KEYS_A_QUESTION]
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
            if len(keys) < KEYS_A_QUESTION:
                await asyncio.sleep(PAUSE_S)


def _seen(outcome: asyncio.Future[V | None]) -> None:
    if not outcome.cancelled():
        outcome.exception()  # perhaps everybody who waited has given up
