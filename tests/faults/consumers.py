"""driver_events: killed between its commits, frozen, and one of two that come and go."""

from __future__ import annotations

import random
import signal
import time

from tests.faults.beside import SideSimulators
from tests.faults.fault import Fault, Seen
from tests.faults.lab import Lab

KILLS = 3
FROZEN_S = 12.0  # twice the group's session time-out: heartbeats stop with everything else
FREEZES = 3
COMINGS = 10  # of a second one, each with a going: twenty rebalances
STAYS_S = 3.0


def kill(lab: Lab) -> Seen:
    """Killed at random moments: offsets are rows of the same transaction, so it goes on there."""
    rng = random.Random(13)
    since = time.monotonic()
    for _ in range(KILLS):
        time.sleep(rng.uniform(0, 1.0))
        since = lab.kill("driver_events")
        _wait_reading(lab)
    recovery_s = lab.wait_healthy(since=since)
    return Seen(f"killed {KILLS} times at random moments", recovery_s, ok=True)


def freeze(lab: Lab) -> Seen:
    """Frozen while another takes its partitions over; then it wakes up and tries to go on."""
    rng = random.Random(14)
    with second(lab):
        lab.wait_healthy()
        for _ in range(FREEZES):
            time.sleep(rng.uniform(0, 1.0))
            with lab.stopped("driver_events"):
                time.sleep(FROZEN_S)
            woken = time.monotonic()
            recovery_s = lab.wait_healthy(since=woken)
    lab.wait_healthy()
    late = lab.log_of("driver_events").count('"why": "offset_lost"')
    seen = (
        f"frozen {FREEZES} times for {FROZEN_S:.0f} s; {late} late writes refused by their offset"
    )
    return Seen(seen, recovery_s, ok=True)


def rebalance(lab: Lab) -> Seen:
    """A second one comes and goes, now in order, now killed."""
    rng = random.Random(15)
    assigned = lab.log_of("driver_events").count('"event": "assigned"')
    last = time.monotonic()
    for number in range(COMINGS):
        with second(lab, signal.SIGKILL if number % 2 else signal.SIGTERM):
            _wait_reading(lab, "driver_events-2")
            time.sleep(rng.uniform(0, STAYS_S))
            last = time.monotonic()
        _wait_reading(lab)  # the group waits 6 s for it to come back under its name
    recovery_s = lab.wait_healthy(since=last)
    assigned = lab.log_of("driver_events").count('"event": "assigned"') - assigned
    return Seen(f"{assigned} assignments of the first of two", recovery_s, ok=assigned >= COMINGS)


def second(lab: Lab, end: signal.Signals = signal.SIGTERM) -> SideSimulators:
    """Another driver_events beside the stack's; its log is `driver_events-2`."""
    name = "driver_events-2"
    (lab.stack.paths.logs / f"{name}.log").unlink(missing_ok=True)
    return SideSimulators(lab, "driver_events", name, {"MQTT_USERNAME": name}, end)


def _wait_reading(lab: Lab, log: str = "driver_events", within_s: float = 60.0) -> None:
    """Wait until one more assignment has been taken up."""
    known = lab.log_of(log).count('"event": "reading"')
    deadline = time.monotonic() + within_s
    while lab.log_of(log).count('"event": "reading"') <= known and time.monotonic() < deadline:
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
