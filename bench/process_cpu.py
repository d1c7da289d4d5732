"""CPU time of processes, from /proc."""

from __future__ import annotations

import os
import time
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children so far, ended children included."""
    total = 0
    for member in [pid, *_descendants(pid)]:
        try:
            stat = Path(f"/proc/{member}/stat").read_text(encoding="ascii")
        except FileNotFoundError:
            continue
        fields = stat.rsplit(") ", 1)[1].split()
        total += sum(int(field) for field in fields[11:15])  # utime stime cutime cstime
    return total / CLOCK_TICKS


def own_cpu_s(pid: int) -> float:
    """CPU seconds of a process; without its children if it is this process."""
    return time.process_time() if pid == os.getpid() else cpu_s(pid)


def thread_cpu_us(pid: int) -> float:
    """CPU microseconds of a single-threaded process so far, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e3


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children += [int(child) for child in task.read_text(encoding="ascii").split()]
    return children + [one for child in children for one in _descendants(child)]
