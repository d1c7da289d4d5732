"""Batched lookups: `load` is a function here, and the database in the service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from doorstep.errors import StoreUnavailable
from doorstep.store import deadline
from tracking_api import batching
from tracking_api.batching import MAX_BATCH_KEYS, BatchLoader


class Squares:
    """Returns the squares of numbers once released; keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.released = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, keys: Sequence[int]) -> dict[int, int]:
        self.batches.append(list(keys))
        await self.released.wait()
        if self.error is not None:
            raise self.error
        return {key: key * key for key in keys if key >= 0}


async def test_batch_loader__concurrent_requests__share_a_batch_and_get_their_own_values():
    squares = Squares()
    load = BatchLoader(squares)
    squares.released.set()
    assert await asyncio.gather(*(load(n) for n in (2, 3, 2, -1))) == [4, 9, 4, None]
    assert squares.batches == [[2, 3, -1]]


async def test_batch_loader__requested_while_a_batch_is_loading__goes_into_a_later_batch():
    """No result is older than its request: a token may have been revoked meanwhile."""
    squares = Squares()
    load = BatchLoader(squares)
    first = [asyncio.create_task(load(2)), asyncio.create_task(load(3))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert squares.batches == [[2, 3]]
    second = asyncio.create_task(load(2))
    squares.released.set()
    assert await asyncio.gather(*first, second) == [4, 9, 4]
    assert squares.batches == [[2, 3], [2]]


async def test_batch_loader__a_batch_that_hangs__holds_later_requests_up_only_shortly():
    hanging = asyncio.Event()
    batches: list[list[int]] = []

    async def squares(keys: Sequence[int]) -> dict[int, int]:
        batches.append(list(keys))
        if 1 in keys:
            await hanging.wait()
        return {key: key * key for key in keys}

    load = BatchLoader(squares)
    first = asyncio.create_task(load(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await asyncio.gather(load(2), load(3)) == [4, 9]
    hanging.set()
    assert await first == 1
    assert batches == [[1], [2, 3]]


async def test_batch_loader__more_keys_than_a_batch_holds__all_get_values():
    squares = Squares()
    load = BatchLoader(squares)
    squares.released.set()
    count = 2 * MAX_BATCH_KEYS + 1
    assert await asyncio.gather(*map(load, range(count))) == [n * n for n in range(count)]
    assert sorted(map(len, squares.batches)) == [1, MAX_BATCH_KEYS, MAX_BATCH_KEYS]


async def test_batch_loader__rate_exceeded__delayed_requests_share_a_batch(monkeypatch):
    monkeypatch.setattr(batching, "BATCHES_PER_S", 2.0)
    monkeypatch.setattr(batching, "BURST", 2)
    squares = Squares()
    load = BatchLoader(squares)
    squares.released.set()
    for n in range(3):
        assert await load(n) == n * n  # the burst is not delayed
    delayed = []
    for n in range(3, 10):
        delayed.append(asyncio.create_task(load(n)))
        await asyncio.sleep(0)
    assert await asyncio.gather(*delayed) == [n * n for n in range(3, 10)]
    assert squares.batches == [[0], [1], [2], list(range(3, 10))]


async def test_batch_loader__an_error__is_raised_to_its_batch_and_to_no_later_one():
    squares = Squares()
    load = BatchLoader(squares)
    squares.released.set()
    squares.error = TimeoutError("unavailable")
    outcomes = await asyncio.gather(load(1), load(2), return_exceptions=True)
    assert [type(one) for one in outcomes] == [TimeoutError, TimeoutError]
    squares.error = None
    assert await load(1) == 1


async def test_batch_loader__one_request_cancelled__the_others_get_their_values():
    squares = Squares()
    load = BatchLoader(squares)
    cancelled, other = (asyncio.create_task(load(2)) for _ in range(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    squares.released.set()
    assert await other == 4


async def test_batch_loader__a_batch_that_takes_too_long__is_abandoned_and_others_are_loaded():
    released, ended = asyncio.Event(), asyncio.Event()

    async def squares(keys: Sequence[int]) -> dict[int, int]:
        if 1 in keys:
            try:
                await released.wait()
            except asyncio.CancelledError:
                await released.wait()  # a server that has gone silent cancels nothing either
                ended.set()
                raise
        return {key: key * key for key in keys}

    load = BatchLoader(squares, within_s=0.05)
    hanging = [asyncio.create_task(load(1))]
    await asyncio.sleep(0.01)
    hanging.append(asyncio.create_task(load(1)))  # in the second worker, from 5 ms on
    await asyncio.sleep(0.02)
    late = asyncio.create_task(load(3))  # both workers hang
    found = await asyncio.gather(*hanging, return_exceptions=True)
    assert [type(one) for one in found] == [StoreUnavailable, StoreUnavailable]
    assert not ended.is_set()
    assert (await late, await load(4)) == (9, 16)
    released.set()
    await ended.wait()
    assert await load(5) == 25


async def test_batch_loader__an_abandoned_batch_that_answers_after_all__loads_no_other():
    batches: list[list[int]] = []
    released = asyncio.Event()

    async def squares(keys: Sequence[int]) -> dict[int, int]:
        batches.append(list(keys))
        if 1 in keys:
            with suppress(asyncio.CancelledError):
                await released.wait()
            released.set()
        return {key: key * key for key in keys}

    load = BatchLoader(squares, within_s=0.02)
    with pytest.raises(StoreUnavailable):
        await load(1)
    assert await load(2) == 4
    assert batches == [[1], [2]]


async def test_batch_loader__its_statements__have_no_deadline_of_their_own(monkeypatch):
    monkeypatch.setattr(deadline, "ANSWER_WITHIN_S", 0.0)

    async def run(_: object) -> int:
        await asyncio.sleep(0.01)
        return 7

    async def load(keys: Sequence[int]) -> dict[int, int]:
        return dict.fromkeys(keys, await deadline.run_command(pool(), run))

    assert await BatchLoader(load)(1) == 7
    with pytest.raises(StoreUnavailable):
        await deadline.run_command(pool(), run)


def pool() -> Any:
    """A pool whose connections are None."""
    return SimpleNamespace(connection=lambda _: nullcontext())
