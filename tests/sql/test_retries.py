"""When the order is due that tries a failed one again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from doorstep.credentials import token_sha256
from tests.factories import now
from tests.sql.fleet import Fleet
from tests.sql.test_order_ends import picked_up

FAIL = "SELECT * FROM fail_order_as_staff_v3(%s, 'anna', 'other', NULL, 'retry', %s, %s)"
TIMES = ("ready_at", "scheduled_for", "promised_from", "promised_to")
QUARTER = timedelta(minutes=15)


def fail_order_of(fleet: Fleet, **minutes: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fail an order with these times, in minutes from now; return the answer, the retry's times."""
    at = now()
    details = {name: (at + timedelta(minutes=m)).isoformat() for name, m in minutes.items()}
    order_id = picked_up(fleet, address="Via Romana 3", **details)
    [failed] = fleet.run(FAIL, order_id, token_sha256("new"), "k")
    return failed, times_of(fleet, failed["retry_order_id"])


def times_of(fleet: Fleet, order_id: UUID) -> dict[str, Any]:
    names = ", ".join(TIMES)
    [row] = fleet.run(f"SELECT {names} FROM order_detail WHERE order_id = %s", order_id)
    return row


def test_retry__after_the_promised_window__gets_one_as_long_that_begins_now(fleet: Fleet) -> None:
    before = now()
    failed, times = fail_order_of(
        fleet, ready_at=-40, scheduled_for=-50, promised_from=-20, promised_to=-5
    )
    assert before <= times["promised_from"] <= now()
    assert times["promised_to"] - times["promised_from"] == QUARTER
    assert (times["ready_at"], times["scheduled_for"]) == (None, None)
    assert failed["retry_promised_from"] == times["promised_from"]
    assert failed["retry_promised_to"] == times["promised_to"]
    fleet.run("SELECT order_notice__decide_v1(10)")
    late = "SELECT FROM order_notice WHERE order_id = %s AND kind = 'late'"
    assert fleet.run(late, failed["retry_order_id"]) == []
    [again] = fleet.run(FAIL, failed["order_id"], token_sha256("other"), "k")
    assert again == {**failed, "is_new": False}


def test_retry__within_the_promised_window__keeps_it(fleet: Fleet) -> None:
    before = now()
    failed, times = fail_order_of(
        fleet, ready_at=1, scheduled_for=2, promised_from=-5, promised_to=10
    )
    minutes = [round((times[name] - before).total_seconds() / 60) for name in TIMES]
    assert minutes == [1, 2, -5, 10]
    assert failed["retry_promised_to"] == times["promised_to"]


@pytest.mark.parametrize("window", [{"promised_to": -5}, {"promised_from": -5, "promised_to": -5}])
def test_retry__after_a_promise_without_a_length__gets_half_an_hour(
    fleet: Fleet, window: dict[str, float]
) -> None:
    before = now()
    _, times = fail_order_of(fleet, **window)
    assert before <= times["promised_to"] - timedelta(minutes=30) <= now()
    assert (times["promised_from"] is None) == ("promised_from" not in window)


def test_retry__without_a_promise__has_none(fleet: Fleet) -> None:
    failed, times = fail_order_of(fleet)
    assert set(times.values()) == {None}
    assert (failed["retry_promised_from"], failed["retry_promised_to"]) == (None, None)


def test_fail__as_the_release_before_calls_it__answers_as_before(fleet: Fleet) -> None:
    order_id = picked_up(fleet)
    before = FAIL.replace("_v3", "_v2")
    [failed] = fleet.run(before, order_id, token_sha256("new"), "k")
    assert failed["is_new"]
    [again] = fleet.run(FAIL, order_id, token_sha256("new"), "k")
    assert again["retry_order_id"] == failed["retry_order_id"]
    assert set(again) - set(failed) == {"retry_promised_from", "retry_promised_to"}
