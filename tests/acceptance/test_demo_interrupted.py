"""Ctrl-C on `./run demo`: no order stays open, no driver on duty, and a second demo starts clean.

The stack stays up, so that the database can be read afterwards.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from doorstep.provision import owner_connection
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack

COURIERS = 8
TIMEOUT_S = 240
PROGRESS = re.compile(r"\d\d:\d\d  .*(picked_up|assigned|at_restaurant)")
OPEN_ORDERS = "SELECT count(*) FROM doorstep.orders WHERE ended_at IS NULL"
ON_DUTY = "SELECT count(*) FROM doorstep.driver_state WHERE duty <> 'off_duty'"


@pytest.fixture(scope="module")
def up(paths: Path) -> Iterator[Stack]:
    """A stack of its own that is up before the demo, and after it."""
    stack = Stack(
        StackSettings(doorstep_home=paths, **FREE_PORTS),
        environment=os.environ | {"ACK_EVERY_S": "2"},
        echo=lambda _line: None,
    )
    try:
        stack.up(owner_pid=os.getpid())
        yield stack
    finally:
        stack.down()


def count(stack: Stack, statement: Any) -> int:
    with owner_connection(stack.database_admin_url) as conn:
        row = conn.execute(statement).fetchone()
    assert row is not None
    return int(row[0])


def run_demo(stack: Stack, interrupt: Callable[[subprocess.Popen[str]], None]) -> str:
    """Run a demo until orders are under way, then interrupt it; return its messages."""
    argv = [sys.executable, "-m", "ops", "demo", "--couriers", str(COURIERS), "--speedup", "10"]
    environment = os.environ | {
        "DOORSTEP_HOME": str(stack.paths.root),
        "ACK_EVERY_S": "2",
        **{name.upper(): "0" for name in FREE_PORTS},
    }
    process = subprocess.Popen(
        argv,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    too_long = threading.Timer(TIMEOUT_S, process.kill)
    too_long.start()
    messages: list[str] = []
    assert process.stderr is not None
    try:
        is_interrupted = False
        for line in process.stderr:
            messages.append(line)
            if PROGRESS.match(line) and not is_interrupted:
                is_interrupted = True
                assert count(stack, OPEN_ORDERS) > 0
                interrupt(process)
        process.wait()
    finally:
        too_long.cancel()
        process.kill()
        process.wait()
        process.stderr.close()
    return "".join(messages)


def once(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def impatiently(process: subprocess.Popen[str]) -> None:
    """Press Ctrl-C again and again: a few times while the demo stops."""
    process.send_signal(signal.SIGINT)
    for delay_s in (0.5, 1.0, 1.5, 2.5):
        threading.Timer(delay_s, process.send_signal, [signal.SIGINT]).start()


@pytest.mark.parametrize("interrupt", [once, impatiently])
def test_demo__interrupted__leaves_no_order_open_and_no_driver_on_duty(
    up: Stack, interrupt: Callable[[subprocess.Popen[str]], None]
) -> None:
    messages = run_demo(up, interrupt)
    assert "stopping" in messages
    assert count(up, OPEN_ORDERS) == 0, messages
    assert count(up, ON_DUTY) == 0, messages
    assert "cannot end the orders" not in messages
    assert "that an earlier demo left open" not in messages


def test_demo__killed_before__is_cleaned_up_by_the_next_one(up: Stack) -> None:
    run_demo(up, lambda process: process.kill())
    messages = run_demo(up, once)
    assert re.search(r"cancelled or failed \d+ orders that an earlier demo left open", messages)
    assert count(up, OPEN_ORDERS) == count(up, ON_DUTY) == 0, messages
