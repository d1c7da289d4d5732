"""A service's background tasks."""

from __future__ import annotations

import asyncio
from typing import Any

from structlog.testing import capture_logs

from doorstep.http.startup import start_task


async def logged_of(task: asyncio.Task[None]) -> list[Any]:
    with capture_logs() as logged:
        await asyncio.wait([task])
        await asyncio.sleep(0)
    return [(one["event"], one["task"]) for one in logged]


async def test_start_task__that_ends_with_an_exception__is_logged() -> None:
    async def fail() -> None:
        raise ValueError

    [(event, task)] = await logged_of(start_task(fail()))
    assert event == "task_ended"
    assert task.endswith("fail")


async def test_start_task__cancelled__logs_nothing() -> None:
    task = start_task(asyncio.sleep(60))
    task.cancel()
    assert await logged_of(task) == []
