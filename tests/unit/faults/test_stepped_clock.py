"""The clock that a fault sets, in processes that have it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.clocks import SteppedClock

HOUR_S = 3600
READ = "import time; print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))"
# Prints "waits", and then how often `consume` has returned, once a second by the uptime.
CONSUME = """
import threading, time
from confluent_kafka import Consumer

consumer = Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "log_level": 0})
consumer.subscribe(["t"])
returned = []

def consume():
    while True:
        consumer.consume(1, 0.3)
        returned.append(1)

threading.Thread(target=consume, daemon=True).start()
while True:
    print(len(returned), flush=True)
    time.sleep(1)
"""


@pytest.fixture
def clock(tmp_path: Path) -> SteppedClock:
    return SteppedClock(tmp_path)


def read_in_process(clock: SteppedClock) -> list[float]:
    argv = [*clock.prefix, sys.executable, "-c", READ]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [float(one) for one in done.stdout.split()]


@pytest.mark.parametrize("off_s", [0, HOUR_S, -HOUR_S])
def test_stepped_clock__set__only_the_wall_clock_is_off(clock: SteppedClock, off_s: int) -> None:
    clock.set(off_s)
    before = time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
    wall_s, uptime_s, boot_s = read_in_process(clock)
    after = time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before[0] <= wall_s - off_s <= after[0]
    assert before[1] <= uptime_s <= after[1]
    assert before[2] <= boot_s <= after[2]


def test_stepped_clock__set_back_during_a_wait_of_librdkafka__it_does_not_return(
    clock: SteppedClock,
) -> None:
    """Why services restart after a step: with a librdkafka that returns, they need not."""
    with subprocess.Popen(
        [*clock.prefix, sys.executable, "-c", CONSUME],
        env={**os.environ},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            while int(process.stdout.readline()) < 3:
                pass
            clock.set(-HOUR_S)
            process.stdout.readline()  # a wait that ended at the step
            first, *later = (int(process.stdout.readline()) for _ in range(4))
            assert later == [first] * 3
            clock.set(HOUR_S)
            while int(process.stdout.readline()) == first:
                pass
        finally:
            process.kill()
