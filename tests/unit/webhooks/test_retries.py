"""The pauses between attempts."""

from __future__ import annotations

from itertools import pairwise

import pytest

from webhooks.retries import RetrySchedule, parse_retry_after

DAY_S = 86_400.0


def attempts_of(schedule: RetrySchedule) -> list[float]:
    """Since the first attempt, when each is made until the delivery is given up."""
    made, since_s = [0.0], 0.0
    while (pause_s := schedule.pause_s(len(made), since_s)) is not None:
        since_s += pause_s
        made.append(since_s)
    return made


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1.0])
def test_pauses__of_a_dead_receiver__grow_and_fill_a_day(drawn: float) -> None:
    made = attempts_of(RetrySchedule(draw=lambda: drawn))
    pauses = [after - before for before, after in pairwise(made)]
    assert pauses[0] == pytest.approx(5 * (0.8 + 0.4 * drawn))
    assert all(one <= other for one, other in pairwise(pauses[:-1]))
    assert max(pauses) <= 7200 * 1.2
    assert made[-1] == DAY_S
    assert 15 <= len(made) <= 25


def test_pauses__drawn_twice__differ() -> None:
    assert RetrySchedule().pause_s(5, 0) != RetrySchedule().pause_s(5, 0)


def test_retry_after__longer_than_the_pause__counts_up_to_an_hour() -> None:
    schedule = RetrySchedule(draw=lambda: 0.5)
    assert schedule.pause_s(1, 0, retry_after_s=60) == 60
    assert schedule.pause_s(1, 0, retry_after_s=1) == 5
    assert schedule.pause_s(1, 0, retry_after_s=1e8) == 3600


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (None, None),
        ("", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("-1", None),
    ],
)
def test_parse_retry_after__seconds_only(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds
