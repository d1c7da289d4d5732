"""No fault, and all processes killed at once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome

NO_FAULT_S = 8.0


def no_fault(env: FaultEnvironment) -> Outcome:
    """Run without a fault: the base line."""
    began = time.monotonic()
    time.sleep(NO_FAULT_S)
    env.wait_healthy()
    return Outcome(f"{time.monotonic() - began:.0f} s without a fault", None, ok=True)


def kill_everything(env: FaultEnvironment) -> Outcome:
    """Kill -9 every process of the stack, with supervisord and its guard: a power cut."""
    guard, *others = env.pids()
    pids = [guard, env.pid("supervisor"), *others]  # the guard would restart supervisord
    at = time.monotonic()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    order = env.start_in_random_order(random.Random(28))
    recovery_s = env.wait_healthy(timeout_s=180, since=at)
    return Outcome(
        f"{len(pids)} processes killed; started as {', '.join(order)}", recovery_s, ok=True
    )


FAULTS = (
    Fault(0, "no fault", "nothing happens", None, True, no_fault),
    Fault(
        28, "kill -9 everything, then start in any order", "ready <= 90 s",
        90, False, kill_everything,
    ),
)  # fmt: skip
