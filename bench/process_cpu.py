"""CPU time of processes, from /proc and the kernel's clocks of processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
CPUCLOCK_SCHED = 2  # the kernel's clock of a process, all threads: see clock_getcpuclockid(3)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children so far, ended children included.

    To the nanosecond for those that run; in ticks of 10 ms for ended children.
    """
    return sum(map(_own_and_ended_s, [pid, *_descendants(pid)]))


def _own_and_ended_s(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
        own_s = time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)
    except OSError:
        return 0.0  # it has ended: its parent's stat counts it
    fields = stat.rsplit(") ", 1)[1].split()
    return own_s + sum(int(field) for field in fields[13:15]) / CLOCK_TICKS  # cutime cstime


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
