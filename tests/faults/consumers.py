"""driver_events: killed between its commits, frozen, and rebalanced."""

from __future__ import annotations

import random
import signal
import time

from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome
from tests.faults.side_process import SideProcess

KILLS = 3
FROZEN_S = 12.0  # twice the group's session time-out
FREEZES = 3
JOINS = 10  # of a second consumer, each with a leave: 20 rebalances
STAYS_S = 3.0


def kill(env: FaultEnvironment) -> Outcome:
    """Kill it at random moments. The offsets are rows of the same transaction as the fixes."""
    rng = random.Random(13)
    since = time.monotonic()
    for _ in range(KILLS):
        time.sleep(rng.uniform(0, 1.0))
        since = env.kill("driver_events")
        _wait_reading(env)
    recovery_s = env.wait_healthy(since=since)
    return Outcome(f"killed {KILLS} times at random moments", recovery_s, ok=True)


def freeze(env: FaultEnvironment) -> Outcome:
    """Freeze it until a second consumer has its partitions, then let it continue."""
    rng = random.Random(14)
    with second_consumer(env):
        env.wait_healthy()
        for _ in range(FREEZES):
            time.sleep(rng.uniform(0, 1.0))
            with env.frozen("driver_events"):
                time.sleep(FROZEN_S)
            woken = time.monotonic()
            recovery_s = env.wait_healthy(since=woken)
    env.wait_healthy()
    late = env.log("driver_events").count('"reason": "offset_lost"')
    seen = (
        f"frozen {FREEZES} times for {FROZEN_S:.0f} s; {late} late writes refused by their offset"
    )
    return Outcome(seen, recovery_s, ok=True)


def rebalance(env: FaultEnvironment) -> Outcome:
    """Start and end a second consumer: alternately stopped and killed."""
    rng = random.Random(15)
    assigned = env.log("driver_events").count('"event": "assigned"')
    last = time.monotonic()
    for number in range(JOINS):
        with second_consumer(env, signal.SIGKILL if number % 2 else signal.SIGTERM):
            _wait_reading(env, "driver_events-2")
            time.sleep(rng.uniform(0, STAYS_S))
            last = time.monotonic()
        _wait_reading(env)  # the group waits 6 s for a static member to return
    recovery_s = env.wait_healthy(since=last)
    assigned = env.log("driver_events").count('"event": "assigned"') - assigned
    return Outcome(
        f"{assigned} assignments of the first consumer", recovery_s, ok=assigned >= JOINS
    )


def second_consumer(env: FaultEnvironment, end: signal.Signals = signal.SIGTERM) -> SideProcess:
    """Return a second driver_events with the log `driver_events-2`."""
    name = "driver_events-2"
    (env.stack.paths.logs / f"{name}.log").unlink(missing_ok=True)
    return SideProcess(env, "driver_events", name, {"MQTT_USERNAME": name}, end)


def _wait_reading(
    env: FaultEnvironment, log: str = "driver_events", within_s: float = 60.0
) -> None:
    """Wait until one more assignment is in use."""
    known = env.log(log).count('"event": "reading"')
    deadline = time.monotonic() + within_s
    while env.log(log).count('"event": "reading"') <= known and time.monotonic() < deadline:
        time.sleep(0.1)


FAULTS = (
    Fault(
        13, "kill -9 driver_events between database and offset commit",
        "replay, no second transition", None, True, kill,
    ),
    Fault(
        14, "SIGSTOP driver_events until another has its partitions",
        "its late write changes nothing", None, False, freeze,
    ),
    Fault(15, "twenty rebalances", "order kept", None, False, rebalance),
)  # fmt: skip
