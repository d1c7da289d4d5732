"""No fault at all, and all of them at once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

from tests.faults.fault import Fault, Seen
from tests.faults.lab import Lab

NOTHING_S = 8.0


def nothing(lab: Lab) -> Seen:
    """The run beside which the others are read."""
    began = time.monotonic()
    time.sleep(NOTHING_S)
    lab.wait_healthy()
    return Seen(f"{time.monotonic() - began:.0f} s without any fault", None, ok=True)


def kill_everything(lab: Lab) -> Seen:
    """kill -9 of every process of the stack, supervisord and its guard too: a power cut."""
    guard, *others = lab.pids()
    pids = [guard, lab.pid("supervisor"), *others]  # the guard would restart supervisord
    at = time.monotonic()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    order = lab.start_again(random.Random(28))
    recovery_s = lab.wait_healthy(timeout_s=180, since=at)
    return Seen(f"{len(pids)} processes killed; started as {', '.join(order)}", recovery_s, ok=True)


FAULTS = (
    Fault(0, "no fault", "nothing happens", None, True, nothing),
    Fault(
        28, "kill -9 everything, then start in any order", "ready <= 90 s",
        90, False, kill_everything,
    ),
)  # fmt: skip
