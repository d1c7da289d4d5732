"""Large answers leave the event loop to others."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

from doorstep.store.deadline import ROWS_AT_ONCE, fetch_rows
from tracking_api.history.pacing import SMALL_FIXES, off_the_loop


async def test_off_the_loop__many_fixes__are_built_one_answer_at_a_time_in_a_thread() -> None:
    running = most = 0
    names: set[str] = set()

    def build() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        names.add(threading.current_thread().name)
        threading.Event().wait(0.01)
        running -= 1

    await asyncio.gather(*(off_the_loop(SMALL_FIXES + 1, build) for _ in range(4)))
    assert most == 1
    assert {one.partition("_")[0] for one in names} == {"large answers"}


async def test_off_the_loop__few_fixes__are_built_at_once() -> None:
    assert await off_the_loop(SMALL_FIXES, threading.current_thread) is threading.current_thread()


class Rows:
    """A cursor with its result."""

    def __init__(self, count: int) -> None:
        self.rowcount = count
        self._rows = iter([(n,) for n in range(count)])
        self.parts: list[int] = []

    async def fetchall(self) -> list[tuple[int]]:
        return await self.fetchmany(self.rowcount)

    async def fetchmany(self, size: int) -> list[tuple[int]]:
        part = [row for _, row in zip(range(size), self._rows, strict=False)]
        self.parts.append(len(part))
        return part


async def test_fetch_rows__many__lets_others_run_between_parts() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    rows = Rows(10 * ROWS_AT_ONCE)
    found = await fetch_rows(cast("Any", rows))
    task.cancel()
    assert found == [(n,) for n in range(10 * ROWS_AT_ONCE)]
    assert max(rows.parts) == ROWS_AT_ONCE
    assert turns >= 10
