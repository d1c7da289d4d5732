"""Detects a wall clock that was stepped while the process runs.

A position is judged by when it arrived. With a clock that is an hour behind, every good fix is "in
the future"; a command opens a range an hour too early. So a process whose clock was stepped never
judges again. It ends once the clock is right, and the one that replaces it judges: librdkafka waits
until an instant of the wall clock, so after a step back by an hour its waits may last an hour. The
clock is right when

- it is back: within MAX_STEP_S of where the clock of the machine's uptime says it should be, or
- the step was a correction: the kernel says that NTP has set its clock and keeps it, or
- there is no NTP, and ACCEPT_AFTER_S have passed: what set the clock is the only authority.

A start accepts the clock as it is.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from prometheus_client import Gauge

from doorstep.errors import ClockStepped
from doorstep.telemetry import get_logger

MAX_STEP_S = 60.0  # half of what a fix may be dated ahead of its arrival
CONFIRM_AFTER_S = 10.0  # a step clears the kernel's "synchronised" until NTP agrees with the clock
ACCEPT_AFTER_S = 300.0  # long enough for a person to be alerted, and to set it back
MAX_KERNEL_OFF_S = 1.0
MAX_READING_S = 0.1  # a process that was suspended between two readings reads again
WATCH_EVERY_S = 1.0
END_WITHIN_S = 5.0  # a thread that librdkafka holds does not end; the rest takes 2 s
EXIT_STATUS = 75  # as EX_TEMPFAIL: a supervisor starts the service again
TIME_ERROR = 5  # of adjtimex: the clock is not synchronised
NANOSECONDS = 0x2000  # of adjtimex's status: `tv_usec` counts nanoseconds

OFF_S = Gauge(
    "doorstep_clock_off_seconds",
    "How far the wall clock is from where the last good check and the uptime put it",
)


class Clocks(NamedTuple):
    """One reading. `uptime_s` counts while the machine is suspended, and is never set."""

    uptime_s: float
    wall_s: float


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("tv_sec", ctypes.c_long),
        ("tv_usec", ctypes.c_long),
        ("rest", ctypes.c_char * 256),
    )


def read_clocks() -> Clocks:
    """Read both clocks at one instant."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    while True:
        before_s = time.clock_gettime(clock)
        wall_s = time.time()
        if time.clock_gettime(clock) - before_s < MAX_READING_S:
            return Clocks(before_s, wall_s)


def kernel_confirms(wall_s: float) -> bool:
    """Return whether the kernel says that NTP keeps its clock, and that clock shows `wall_s`."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):  # not Linux
        return False
    found = _Timex()  # modes 0: read only
    state = adjtimex(ctypes.byref(found))
    if state < 0 or state == TIME_ERROR:
        return False
    fraction_s = found.tv_usec / (1e9 if found.status & NANOSECONDS else 1e6)
    kernel_s: float = found.tv_sec + fraction_s
    return abs(kernel_s - wall_s) <= MAX_KERNEL_OFF_S


class ClockGuard:
    """Compares the wall clock with the uptime at each use. Thread-safe; a check costs 2 µs."""

    def __init__(
        self,
        read: Callable[[], Clocks] = read_clocks,
        confirms: Callable[[float], bool] = kernel_confirms,
    ) -> None:
        self._read = read
        self._confirms = confirms
        self._lock = threading.Lock()
        now = read()
        self._expected_s = now.wall_s - now.uptime_s  # what the wall clock shows at uptime 0
        self._stepped_at_s: float | None = None  # uptime
        self._stepped_off_s = 0.0
        self._has_ntp = False  # before a step

    def check(self) -> None:
        """Raise ClockStepped if the clock was stepped."""
        if not self.is_trusted():
            raise ClockStepped

    def now(self) -> datetime:
        """Return the wall clock's instant, which may judge. Raises ClockStepped."""
        at = datetime.now(UTC)
        self.check()  # after it: a step before the reading is seen
        return at

    def is_trusted(self) -> bool:
        """Return whether the wall clock may judge: never again after a step."""
        with self._lock:
            if self._stepped_at_s is None:
                self._compare(self._read())
            return self._stepped_at_s is None

    def is_right_again(self) -> bool:
        """Return whether the clock was stepped and is right now: this process should end."""
        with self._lock:
            now = self._read()
            off_s = self._compare(now)
            if self._stepped_at_s is None:
                self._has_ntp = self._has_ntp or self._confirms(now.wall_s)
                return False
            if abs(off_s) <= MAX_STEP_S:
                return True
            waited_s = now.uptime_s - self._stepped_at_s
            if not self._has_ntp and waited_s >= ACCEPT_AFTER_S:
                return True
            return waited_s >= CONFIRM_AFTER_S and self._confirms(now.wall_s)

    def _compare(self, now: Clocks) -> float:
        """Return how far the clock is off. Small differences are followed before a step."""
        off_s = now.wall_s - now.uptime_s - self._expected_s
        if self._stepped_at_s is None and abs(off_s) <= MAX_STEP_S:
            self._expected_s += off_s
            off_s = 0.0
        elif self._stepped_at_s is None or abs(off_s - self._stepped_off_s) > MAX_STEP_S:
            self._stepped_at_s, self._stepped_off_s = now.uptime_s, off_s  # each step waits anew
            get_logger().error("clock_stepped", off_s=round(off_s, 1))
        OFF_S.set(off_s)
        return off_s


def end_process() -> None:
    """End this process: in order, or after END_WITHIN_S without."""
    get_logger().error("ends_because_the_clock_was_stepped")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_WITHIN_S)
    os._exit(EXIT_STATUS)


def watched_clock(
    guard: ClockGuard | None = None,
    end: Callable[[], None] = end_process,
    every_s: float = WATCH_EVERY_S,
) -> ClockGuard:
    """Return a guard whose process ends once a stepped clock is right again."""
    guard = guard or ClockGuard()

    def watch() -> None:
        while not guard.is_right_again():
            time.sleep(every_s)
        end()

    threading.Thread(target=watch, name="clock", daemon=True).start()
    return guard
