"""The quick faults, on one small lab: what `./run faults` shows of all of them, in CI.

No time is asserted here, which another program on the machine could fail: only that it is healthy
again, and the invariants.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.faults.__main__ import collect, run_one
from tests.faults.checker import Checker
from tests.faults.fault import Fault, Seen
from tests.faults.lab import Lab, LabSettings

RATE = 60.0
COURIERS = 4
AN_ORDER_WITHIN_S = 120.0
NORMAL_S = 20.0  # however busy the machine is: what is old would be older than that
OTHERS = ("postgres", "kafka", "driver_api", "tracking_api", "supervisor")
QUICK = [one for one in collect() if one.quick]


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    """A lab at work, and what checks it."""
    with Lab(
        LabSettings(rate=RATE, couriers=COURIERS, normal_s=NORMAL_S), say=lambda _line: None
    ) as lab:
        yield Checker(lab)


@pytest.mark.parametrize("fault", QUICK, ids=[f"{one.id}-{one.name}" for one in QUICK])
def test_fault__loses_nothing_and_is_healthy_again(checker: Checker, fault: Fault) -> None:
    result = run_one(fault, checker, timed=False)
    assert result.ok, result.seen
    assert result.commit_acked > 0
    assert (result.lost, result.duplicates) == (0, 0)


@pytest.mark.parametrize("part", OTHERS)
def test_kill_9__of_any_other_part__loses_nothing(checker: Checker, part: str) -> None:
    """Without the long looks that `./run faults` takes at each of these."""

    def kill(lab: Lab) -> Seen:
        pid = lab.pid(part)
        since = lab.kill(part)
        recovery_s = lab.wait_healthy(since=since)
        return Seen(f"{part} was killed", recovery_s, ok=lab.pid(part) != pid)

    fault = Fault(-1, f"kill -9 {part}", "nothing is lost", None, quick=True, run=kill)
    result = run_one(fault, checker, timed=False)
    assert result.ok, result.seen


def test_scripted_orders__after_all_that__end_as_the_model_says(checker: Checker) -> None:
    """Each check has compared them; here that there was something to compare."""
    deadline = time.monotonic() + AN_ORDER_WITHIN_S
    while True:
        verdict = checker.check({})
        assert verdict.ok, verdict.complaints
        if verdict.orders:
            return
        assert time.monotonic() < deadline, "no order was finished"
        time.sleep(5)  # for the couriers to ride: a check holds them up
