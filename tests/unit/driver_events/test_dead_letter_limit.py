"""How many dead letters of one device are kept. No seam: the clock is passed in."""

from __future__ import annotations

from doorstep.store.records import DeadLetter
from driver_events import metrics
from driver_events.dead_letter_limit import BURST_MINUTES, DeadLetterLimit

PER_MINUTE = 10


def letters(count: int, driver_id: str | None = "d1", topic: str = "") -> list[DeadLetter]:
    return [
        DeadLetter(b"{", driver_id, "not_json", "mqtt", topic, "", received_at_ms=n)
        for n in range(count)
    ]


def test_keep__a_flood_of_one_device__keeps_the_burst_and_counts_the_rest() -> None:
    limit = DeadLetterLimit(PER_MINUTE, clock=lambda: 0.0)
    before = metrics.DEAD_LETTERS_DROPPED._value.get()
    flood = letters(1000)
    assert limit.keep(flood) == flood[: BURST_MINUTES * PER_MINUTE]
    assert limit.keep(letters(1, "d2")) == letters(1, "d2")
    assert metrics.DEAD_LETTERS_DROPPED._value.get() - before == 1000 - BURST_MINUTES * PER_MINUTE


def test_keep__a_minute_later__keeps_as_many_as_a_minute_has() -> None:
    now_s = [0.0]
    limit = DeadLetterLimit(PER_MINUTE, clock=lambda: now_s[0])
    limit.keep(letters(1000))
    now_s[0] = 60.0
    assert len(limit.keep(letters(1000))) == PER_MINUTE


def test_keep__a_source_with_many_series__has_one_limit() -> None:
    limit = DeadLetterLimit(PER_MINUTE, clock=lambda: 0.0)
    kept = [limit.keep(letters(1, None, f"doorstep/v1/series/s1/measure-{n}")) for n in range(1000)]
    assert sum(map(len, kept)) == BURST_MINUTES * PER_MINUTE
    assert limit.keep(letters(1, None, "doorstep/v1/series/s2/measure-1"))
