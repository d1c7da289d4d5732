"""Devices over the rate limit. The seam replaced: the clock."""

from __future__ import annotations

from datetime import datetime, timedelta

from driver_events import metrics
from driver_events.rate_monitor import CHECK_EVERY_S, WINDOW_S, RateMonitor
from tests.factories import make_fix, now, numbered


class Hour:
    """A rate monitor with a manual clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.monitor = RateMonitor(lambda: self.now_s)
        self._before = self._total()

    def send(self, driver_id: str, fixes: int, received_at: datetime | None = None) -> None:
        at = received_at or now()
        self.monitor.count(numbered([make_fix(driver_id, received_at=at)] * fixes))

    def found_after(self, seconds: float = CHECK_EVERY_S) -> int:
        self.now_s += seconds
        self.monitor.check()
        return round(self._total() - self._before)

    @staticmethod
    def _total() -> float:
        [sample] = [
            one
            for one in next(iter(metrics.CHATTY.collect())).samples
            if one.name.endswith("_total")
        ]
        return sample.value


def test_rate_monitor__burst_of_1000__is_allowed() -> None:
    hour = Hour()
    hour.send("d1", 1000)
    assert hour.found_after() == 0


def test_rate_monitor__burst_of_2000__is_counted_once() -> None:
    hour = Hour()
    hour.send("d1", 2000)
    hour.send("d2", 3)
    assert hour.found_after() == 1
    hour.send("d1", 2000)
    assert hour.found_after() == 1


def test_rate_monitor__six_a_second_for_an_hour__is_counted_and_four_are_not() -> None:
    hour = Hour()
    for _ in range(int(WINDOW_S / CHECK_EVERY_S)):
        hour.send("d1", int(6 * CHECK_EVERY_S))
        hour.send("d2", int(4 * CHECK_EVERY_S))
        found = hour.found_after()
    assert found == 1


def test_rate_monitor__new_hour__counts_again() -> None:
    hour = Hour()
    hour.send("d1", 900)
    assert hour.found_after(WINDOW_S + 1) == 0
    hour.send("d1", 900)
    assert hour.found_after() == 0


def test_rate_monitor__backlog_of_ten_hours__is_allowed() -> None:
    hour = Hour()
    began = now() - timedelta(hours=10)
    for n in range(9):
        hour.send("d1", 1000, began + timedelta(hours=n))
    assert hour.found_after() == 0


def test_rate_monitor__no_rows__counts_nothing() -> None:
    hour = Hour()
    hour.monitor.count([])
    assert hour.found_after() == 0
