"""Questions asked together: `ask` is a function here, and the database in the service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tracking_api import batching as together_module
from tracking_api.batching import KEYS_A_QUESTION, BatchLoader


class Asked:
    """Answers numbers with their squares, when it is let; keeps the questions."""

    def __init__(self) -> None:
        self.questions: list[list[int]] = []
        self.let = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, keys: Sequence[int]) -> dict[int, int]:
        self.questions.append(list(keys))
        await self.let.wait()
        if self.error is not None:
            raise self.error
        return {key: key * key for key in keys if key >= 0}


async def test_together__many_at_once__are_one_question_and_each_gets_their_own_answer():
    asked = Asked()
    together = BatchLoader(asked)
    asked.let.set()
    assert await asyncio.gather(*(together(n) for n in (2, 3, 2, -1))) == [4, 9, 4, None]
    assert asked.questions == [[2, 3, -1]]


async def test_together__asked_while_an_answer_is_awaited__goes_into_a_later_question():
    """So that nobody hears what was true before they asked: a token may have been revoked."""
    asked = Asked()
    together = BatchLoader(asked)
    first = [asyncio.create_task(together(2)), asyncio.create_task(together(3))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asked.questions == [[2, 3]]
    second = asyncio.create_task(together(2))
    asked.let.set()
    assert await asyncio.gather(*first, second) == [4, 9, 4]
    assert asked.questions == [[2, 3], [2]]


async def test_together__more_than_fit_into_a_question__all_get_answers():
    asked = Asked()
    together = BatchLoader(asked)
    asked.let.set()
    count = 2 * KEYS_A_QUESTION + 1
    assert await asyncio.gather(*map(together, range(count))) == [n * n for n in range(count)]
    assert sorted(map(len, asked.questions)) == [1, KEYS_A_QUESTION, KEYS_A_QUESTION]


async def test_together__a_rush_of_one_after_the_other__shares_a_question(monkeypatch):
    monkeypatch.setattr(together_module, "QUESTIONS_PER_S", 2.0)
    monkeypatch.setattr(together_module, "BURST", 2)
    asked = Asked()
    together = BatchLoader(asked)
    asked.let.set()
    for n in range(3):
        assert await together(n) == n * n  # nobody holds back the first ones
    rush = []
    for n in range(3, 10):
        rush.append(asyncio.create_task(together(n)))
        await asyncio.sleep(0)
    assert await asyncio.gather(*rush) == [n * n for n in range(3, 10)]
    assert asked.questions == [[0], [1], [2], list(range(3, 10))]


async def test_together__an_error__goes_to_all_of_the_question_and_to_nobody_after():
    asked = Asked()
    together = BatchLoader(asked)
    asked.let.set()
    asked.error = TimeoutError("away")
    outcomes = await asyncio.gather(together(1), together(2), return_exceptions=True)
    assert [type(one) for one in outcomes] == [TimeoutError, TimeoutError]
    asked.error = None
    assert await together(1) == 1


async def test_together__one_gives_up__takes_nobody_along():
    asked = Asked()
    together = BatchLoader(asked)
    impatient, patient = (asyncio.create_task(together(2)) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    asked.let.set()
    assert await patient == 4
