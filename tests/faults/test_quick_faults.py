"""The quick faults of `./run faults` in a small environment.

No recovery time is asserted, because the machine may be busy: only that the stack is healthy again,
and the invariants.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.faults.__main__ import collect
from tests.faults.checker import Checker
from tests.faults.environment import EnvironmentSettings, FaultEnvironment
from tests.faults.fault import Fault, Outcome
from tests.faults.runner import run_one

RATE = 60.0
COURIERS = 4
AN_ORDER_WITHIN_S = 120.0
NORMAL_S = 20.0  # much longer than usual: the machine may be busy
OTHERS = ("postgres", "kafka", "driver_api", "tracking_api", "supervisor")
QUICK = [one for one in collect() if one.quick and not one.not_here]


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    """An environment under load, with its checker."""
    with FaultEnvironment(
        EnvironmentSettings(rate=RATE, couriers=COURIERS, normal_s=NORMAL_S), say=lambda _line: None
    ) as env:
        yield Checker(env)


@pytest.mark.parametrize("fault", QUICK, ids=[f"{one.id}-{one.name}" for one in QUICK])
def test_fault__loses_nothing_and_is_healthy_again(checker: Checker, fault: Fault) -> None:
    result = run_one(fault, checker, timed=False)
    assert result.ok, result.seen
    assert result.commit_acked > 0
    assert (result.lost, result.duplicates) == (0, 0)


@pytest.mark.parametrize("part", OTHERS)
def test_kill_9__of_any_other_part__loses_nothing(checker: Checker, part: str) -> None:
    def kill(env: FaultEnvironment) -> Outcome:
        pid = env.pid(part)
        since = env.kill(part)
        recovery_s = env.wait_healthy(since=since)
        return Outcome(f"{part} was killed", recovery_s, ok=env.pid(part) != pid)

    fault = Fault(-1, f"kill -9 {part}", "nothing is lost", None, quick=True, run=kill)
    result = run_one(fault, checker, timed=False)
    assert result.ok, result.seen


def test_scripted_orders__after_all_that__end_as_the_model_says(checker: Checker) -> None:
    """Every check compares finished orders with the model. Here at least one is finished."""
    deadline = time.monotonic() + AN_ORDER_WITHIN_S
    while True:
        verdict = checker.check({})
        assert verdict.ok, verdict.violations
        if verdict.orders:
            return
        assert time.monotonic() < deadline, "no order was finished"
        time.sleep(5)  # a check pauses the couriers
