"""Detects a wall clock that was stepped while the process runs.

A position is judged by when it arrived. With a clock that is an hour behind, every good fix is "in
the future"; a command opens a range an hour too early. So nothing is judged or commanded until the
clock is right again. It is right when

- it is back: within MAX_STEP_S of where the clock of the machine's uptime says it should be, or
- the step was a correction: the kernel says that NTP has set its clock and keeps it.

A restart accepts the clock as it is.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import Gauge

from doorstep.errors import ClockStepped
from doorstep.telemetry import get_logger

MAX_STEP_S = 60.0  # half of what a fix may be dated ahead of its arrival
CONFIRM_AFTER_S = 10.0  # a step clears the kernel's "synchronised" until NTP agrees with the clock
MAX_KERNEL_OFF_S = 1.0
MAX_READING_S = 0.1  # a process that was suspended between two readings reads again
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

    def check(self) -> None:
        """Raise ClockStepped while the clock is not trusted."""
        if not self.is_trusted():
            raise ClockStepped

    def is_trusted(self) -> bool:
        """Return whether the wall clock may judge. Small differences are followed."""
        with self._lock:
            now = self._read()
            off_s = now.wall_s - now.uptime_s - self._expected_s
            if abs(off_s) > MAX_STEP_S and not self._is_correction(now, off_s):
                OFF_S.set(off_s)
                return False
            self._expected_s += off_s
            if self._stepped_at_s is not None:
                get_logger().warning("clock_trusted_again", off_s=round(off_s, 1))
            self._stepped_at_s = None
            OFF_S.set(0)
            return True

    def _is_correction(self, now: Clocks, off_s: float) -> bool:
        if self._stepped_at_s is None:
            get_logger().error("clock_stepped", off_s=round(off_s, 1))
            self._stepped_at_s = now.uptime_s
        waited_s = now.uptime_s - self._stepped_at_s
        return waited_s >= CONFIRM_AFTER_S and self._confirms(now.wall_s)
