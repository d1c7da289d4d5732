"""The worker that lets sampling follow demand. The seam: the database's connection is a fake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from driver_events.demand import DemandFollower


class FakeConnection:
    @contextmanager
    def transaction(self) -> Iterator[None]:
        yield None


def follower(
    monkeypatch: pytest.MonkeyPatch, changes: list[int], clock: list[float]
) -> tuple[DemandFollower, list[bool], list[str]]:
    asked: list[bool] = []
    woken: list[str] = []

    def follow_demand(_: Any, *, everybody: bool) -> int:
        asked.append(everybody)
        return changes.pop(0)

    monkeypatch.setattr("doorstep.store.fix_writer.follow_demand", follow_demand)
    connection: Any = FakeConnection()
    made = DemandFollower(connection, lambda: woken.append("commands"), lambda: clock[0])
    return made, asked, woken


def test_follow__changes__publishes_them_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _, woken = follower(monkeypatch, [0, 2, 0], [0.0])
    for _ in range(3):
        assert one.follow() is False
    assert woken == ["commands"]


def test_follow__within_a_minute__looks_at_busy_drivers_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    one, asked, _ = follower(monkeypatch, [0, 0, 0], clock)
    for clock[0] in (0.0, 59.0, 60.0):
        one.follow()
    assert asked == [True, False, True]
