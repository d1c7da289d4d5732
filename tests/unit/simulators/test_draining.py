"""The end of a simulation. `Phone` stands in for a device, without a broker and a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from device.journal import Journal
from simulators import draining
from simulators.draining import drain


class Phone:
    """A device whose watermark covers one more fix at each look, down to `stuck`."""

    def __init__(self, pending: int, stuck: int = 0) -> None:
        self._pending, self._stuck = pending, stuck
        self.flushes = 0

    def flush(self) -> None:
        self.flushes += 1

    @property
    def pending(self) -> int:
        self._pending = max(self._stuck, self._pending - 1)
        return self._pending


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield journal


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "POLL_S", 0.01)
    monkeypatch.setattr(draining, "SPARE_S", 0.1)


async def test_drain__watermarks_that_move__are_waited_for_longer_than_the_patience(
    journal: Journal,
) -> None:
    phones = [Phone(40), Phone(3)]
    assert await drain(cast("list[Any]", phones), journal, ack_every_s=0.0) == 0
    assert [one.flushes for one in phones] == [1, 1]


async def test_drain__a_watermark_that_stands_still__leaves_its_fixes(journal: Journal) -> None:
    phones = [Phone(9, stuck=5), Phone(3)]
    assert await drain(cast("list[Any]", phones), journal, ack_every_s=0.0) == 5
