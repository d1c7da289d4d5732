"""kill -9 of the couriers' process: they go on where they were, and no fix is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from doorstep.errors import DoorstepError
from doorstep.provision import numbered_ids, owner_connection
from ops.demo.couriers import PREFIX, CouriersProcess
from ops.fleet_statistics import read_orders
from ops.ledger import Ledger, compare, read_journals
from ops.stack.stack import Stack

COURIERS = 20
SPEEDUP = 10
PROGRESS_WITHIN_S = 60.0
AGREE_WITHIN_S = 60.0
STEADY_S = 6.0
DELIVER_WITHIN_S = 180.0  # a delivery takes 25 minutes, at ten times the speed


@pytest.fixture(scope="module")
def couriers(stack: Stack) -> Iterator[CouriersProcess]:
    """The couriers' process, publishing."""
    stack.add_drivers(numbered_ids(PREFIX, COURIERS))
    before = published(stack)  # by other tests' devices
    process = CouriersProcess(stack, COURIERS, SPEEDUP)
    wait_for_progress(stack, process, before)
    yield process
    process.stop()


def published(stack: Stack) -> int:
    return sum(boot.last_seq for boot in read_journals(stack.paths.journals))


def wait_for_progress(stack: Stack, couriers: CouriersProcess, more_than: int) -> None:
    deadline = time.monotonic() + PROGRESS_WITHIN_S
    while published(stack) <= more_than:
        assert time.monotonic() < deadline, "the couriers publish nothing"
        couriers.keep_running()
        time.sleep(0.2)


def ledger_when_settled(stack: Stack) -> Ledger:
    """Compare the journals as they are now with the database, once that has all fixes."""
    boots = read_journals(stack.paths.journals)
    deadline = time.monotonic() + AGREE_WITHIN_S
    while True:
        try:
            with owner_connection(stack.database_admin_url) as conn:
                ledger = compare(conn, boots)
        except DoorstepError as exc:
            if not exc.retriable or time.monotonic() > deadline:
                raise
        else:
            if not ledger.lost or time.monotonic() > deadline:
                return ledger
        time.sleep(1)


def test_kill_9__of_the_couriers__loses_nothing(stack: Stack, couriers: CouriersProcess) -> None:
    """Every other process is killed in tests/faults."""
    os.kill(couriers.pid, signal.SIGKILL)
    time.sleep(0.5)
    before = published(stack)
    wait_for_progress(stack, couriers, before)
    time.sleep(STEADY_S)
    ledger = ledger_when_settled(stack)
    assert ledger.lost == 0, ledger.complaints()
    assert not any(one.inconsistent for one in ledger.balances), ledger.complaints()
    assert ledger.published > before


def test_couriers__killed_and_restarted__still_deliver(
    stack: Stack, couriers: CouriersProcess
) -> None:
    """They go on with the orders that they had."""
    since, driver_ids = datetime.now(UTC), numbered_ids(PREFIX, COURIERS)
    deadline = time.monotonic() + DELIVER_WITHIN_S
    while True:
        with owner_connection(stack.database_admin_url) as conn:
            orders = read_orders(conn, driver_ids, since)
        if orders["delivered"]:
            return
        assert time.monotonic() < deadline, orders
        time.sleep(2)
