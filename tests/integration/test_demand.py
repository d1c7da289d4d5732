"""Reporting follows demand, from an open page to the policy of the courier's device."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from device.device_session import open_device_session
from device.settings import DeviceSettings
from ops.servers.waiting import wait_until_async
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack
from tests.integration.test_live import Scene

SOON_S = 60.0


@pytest.fixture(scope="module")
def demand_stack(server_home: Path, only_worker: Callable[[str], None]) -> Iterator[Stack]:
    """A stack whose devices report by demand, which is the default."""
    only_worker("integration's stack by demand")
    settings = StackSettings(doorstep_home=server_home / "demand-stack", **FREE_PORTS)
    stack = Stack(settings, environment=os.environ, echo=lambda _line: None)
    try:
        stack.up(owner_pid=os.getpid())
        yield stack
    finally:
        stack.down(erase=True)


async def test_sampling__an_order_that_is_watched_and_ends__follows_demand(
    demand_stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in demand_stack.client_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JOURNAL_DIR", str(tmp_path))
    with closing(Scene(demand_stack)) as scene:
        async with open_device_session(scene.driver_id, DeviceSettings.load()) as session:
            await session.wait_connected(SOON_S)

            async def wait_for(mode: str, batch_s: float) -> None:
                def is_set() -> bool:
                    policy = session.device.sampler.policy
                    return (policy.mode, policy.batch_s) == (mode, batch_s)

                await wait_until_async(is_set, SOON_S, f"{mode}, {batch_s:g} s")

            await wait_for("all", 16)
            with closing(scene.follow()):
                await wait_for("all", 0)
            await asyncio.to_thread(scene.command, scene.order, "cancel")
            await wait_for("dead_reckoning", 0)
        answer = scene.staff.get(f"/drivers/{scene.driver_id}/reporting").json()
        assert (answer["demand"], answer["mode"]) == ("idle", "dead_reckoning")
