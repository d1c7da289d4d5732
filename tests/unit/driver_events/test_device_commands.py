"""Publishing commands. The seams replaced: the database's calls, and MQTT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from doorstep.sampling import SamplingPolicy, decode_command
from doorstep.store import fix_writer
from driver_events.device_commands import CommandPublisher
from driver_events.recorder import Connection


class Rows:
    """The seam of the database."""

    def __init__(self) -> None:
        self.waiting = {"anna": 1, "bruno": 4}
        self.renewed = 0

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        yield self

    def take(self, _conn: Any, limit: int) -> list[tuple[str, int, SamplingPolicy]]:
        return [
            (one, version, SamplingPolicy(mode="time")) for one, version in self.waiting.items()
        ]

    def confirm(self, _conn: Any, taken: list[tuple[str, int]]) -> None:
        for driver_id, _ in taken:
            del self.waiting[driver_id]

    def renew(self, _conn: Any) -> None:
        self.renewed += 1


class Broker:
    """The seam of MQTT: confirms the drivers in `confirms`; those in `away` are unreachable."""

    def __init__(self) -> None:
        self.connect_count = 1
        self.confirms = {"anna", "bruno"}
        self.away: set[str] = set()
        self.sent: list[tuple[str, SamplingPolicy]] = []

    def send_command(self, driver_id: str, payload: bytes) -> Callable[[], bool] | None:
        if driver_id in self.away:
            return None
        self.sent.append((driver_id, decode_command(payload)))
        return lambda: driver_id in self.confirms


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    one = Rows()
    monkeypatch.setattr(fix_writer, "take_reporting", one.take)
    monkeypatch.setattr(fix_writer, "confirm_reporting", one.confirm)
    monkeypatch.setattr(fix_writer, "renew_reporting", one.renew)
    return one


def publisher(rows: Rows, broker: Broker) -> CommandPublisher:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return CommandPublisher(cast("Connection", rows), broker, lambda: now[0], sleep)


def test_publish__confirmed__is_not_sent_again(rows: Rows) -> None:
    broker = Broker()
    publisher(rows, broker).publish()
    assert broker.sent == [
        ("anna", SamplingPolicy(mode="time")),
        ("bruno", SamplingPolicy(mode="time")),
    ]
    assert rows.waiting == {}


def test_publish__not_confirmed_or_broker_unreachable__stays_pending(rows: Rows) -> None:
    broker = Broker()
    broker.confirms, broker.away = set(), {"bruno"}
    one = publisher(rows, broker)
    one.publish()
    assert set(rows.waiting) == {"anna", "bruno"}
    broker.confirms, broker.away = {"anna", "bruno"}, set()
    one.publish()
    assert rows.waiting == {}


def test_publish__after_a_reconnect__sends_everything_again(rows: Rows) -> None:
    broker = Broker()
    one = publisher(rows, broker)
    one.publish()
    one.publish()
    assert rows.renewed == 1
    broker.connect_count += 1
    one.publish()
    assert rows.renewed == 2
