"""Arrival times of records. The seams replaced: messages, and the reader's clock."""

from __future__ import annotations

from typing import cast

import pytest
from confluent_kafka import Message

from doorstep.errors import ClockStepped
from driver_events.arrivals import TOLERANCE_MS, ArrivalTimes

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000


class FakeMessage:
    def __init__(self, offset: int, stamp_ms: int, partition: int = 0) -> None:
        self._values = offset, stamp_ms, partition

    def key(self) -> bytes:
        return b"d1"

    def value(self) -> bytes:
        return b"{}"

    def offset(self) -> int:
        return self._values[0]

    def timestamp(self) -> tuple[int, int]:
        return 2, self._values[1]

    def partition(self) -> int:
        return self._values[2]


def times_of(arrivals: ArrivalTimes, *messages: FakeMessage) -> list[int]:
    return [one.received_at_ms for one in arrivals.records_of(cast("list[Message]", messages))]


def commit(arrivals: ArrivalTimes, *messages: FakeMessage) -> None:
    arrivals.committed(cast("list[Message]", messages))


def test_arrivals__a_backlog_of_a_right_clock__keeps_its_times() -> None:
    arrivals = ArrivalTimes(now_ms=lambda: NOW_MS)
    stamps = [NOW_MS - HOUR_MS, NOW_MS - HOUR_MS // 2, NOW_MS]
    assert times_of(arrivals, *(FakeMessage(n, at) for n, at in enumerate(stamps))) == stamps


def test_arrivals__kafkas_clock_ahead__read_as_arrived_now() -> None:
    arrivals = ArrivalTimes(now_ms=lambda: NOW_MS)
    messages = FakeMessage(0, NOW_MS), FakeMessage(1, NOW_MS + HOUR_MS)
    assert times_of(arrivals, *messages) == [NOW_MS, NOW_MS]


def test_arrivals__kafkas_clock_set_back__read_as_arrived_now() -> None:
    arrivals = ArrivalTimes(now_ms=lambda: NOW_MS + TOLERANCE_MS)
    commit(arrivals, FakeMessage(0, NOW_MS))
    later = FakeMessage(1, NOW_MS - HOUR_MS), FakeMessage(2, NOW_MS + 5)
    assert times_of(arrivals, *later) == [NOW_MS + TOLERANCE_MS, NOW_MS + 5]


def test_arrivals__set_back_over_a_pause__the_partition_goes_on_as_before() -> None:
    arrivals = ArrivalTimes(now_ms=lambda: NOW_MS)
    commit(arrivals, FakeMessage(6, NOW_MS), FakeMessage(7, NOW_MS))
    arrivals.resume({0: 8})
    assert times_of(arrivals, FakeMessage(8, NOW_MS - HOUR_MS)) == [NOW_MS]


def test_arrivals__set_back_before_a_start__the_record_before_tells() -> None:
    arrivals = ArrivalTimes(now_ms=lambda: NOW_MS)
    arrivals.resume({0: 8})
    commit(arrivals, FakeMessage(7, NOW_MS - 30_000))
    assert times_of(arrivals, FakeMessage(8, NOW_MS - HOUR_MS)) == [NOW_MS]


def test_arrivals__read_again_from_before__keeps_its_times() -> None:
    arrivals = ArrivalTimes(now_ms=lambda: NOW_MS)
    commit(arrivals, FakeMessage(7, NOW_MS))
    arrivals.resume({0: 2})
    assert times_of(arrivals, FakeMessage(2, NOW_MS - HOUR_MS)) == [NOW_MS - HOUR_MS]


def test_arrivals__another_partition_is_behind__keeps_its_times() -> None:
    arrivals = ArrivalTimes(now_ms=lambda: NOW_MS)
    commit(arrivals, FakeMessage(7, NOW_MS, partition=1))
    assert times_of(arrivals, FakeMessage(2, NOW_MS - HOUR_MS)) == [NOW_MS - HOUR_MS]


def test_arrivals__clock_was_ahead_and_was_corrected__live_records_keep_their_times() -> None:
    now_ms = [NOW_MS + HOUR_MS]
    arrivals = ArrivalTimes(now_ms=lambda: now_ms[0])
    commit(arrivals, FakeMessage(0, NOW_MS + HOUR_MS))
    now_ms[0] = NOW_MS
    assert times_of(arrivals, FakeMessage(1, NOW_MS - 1000)) == [NOW_MS - 1000]


def test_arrivals__the_readers_clock_was_set_back_after_it_read__are_not_judged() -> None:
    def check_clock() -> None:
        raise ClockStepped

    arrivals = ArrivalTimes(check_clock, lambda: NOW_MS - HOUR_MS)
    with pytest.raises(ClockStepped):
        times_of(arrivals, FakeMessage(0, NOW_MS))
