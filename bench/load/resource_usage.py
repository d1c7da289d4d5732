"""Resource usage from /proc, and the services' metrics."""

from __future__ import annotations

import os
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from doorstep.settings import Bind

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
METRICS_TIMEOUT_S = 3.0
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """CPU seconds so far by part (user and system), and of the machine, at one instant."""

    at_s: float
    cpu_s: Mapping[str, float]
    machine_busy_s: float
    machine_all_s: float


def read_usage(pids: Mapping[str, Iterable[int]]) -> ResourceUsage:
    """Read the CPU seconds of each part's processes and their children."""
    children = _children()
    by_part = {part: sum(_cpu_s(one, children) for one in ids) for part, ids in pids.items()}
    busy_s, all_s = _machine_s()
    return ResourceUsage(time.time(), by_part, busy_s, all_s)


def cores_used(before: ResourceUsage, after: ResourceUsage) -> dict[str, float]:
    """The cores that each part used between two readings."""
    seconds = max(0.001, after.at_s - before.at_s)
    return {
        part: (cpu_s - before.cpu_s[part]) / seconds
        for part, cpu_s in after.cpu_s.items()
        if part in before.cpu_s
    }


def children_of(pid: int) -> list[int]:
    """A process's children."""
    return _children().get(pid, [])


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory by part: what its processes share is counted once, or not at all."""

    all_mib: dict[str, float]
    unshared_mib: dict[str, float]


def read_memory(pids: Mapping[str, Iterable[int]]) -> Memory:
    """Read the resident memory of each part's processes and their children."""
    children = _children()
    memory = Memory({}, {})
    for part, ids in pids.items():
        members = [member for one in ids for member in _process_tree(one, children)]
        sizes = [_memory_pages(member) for member in members]
        shared = max((shared for _all, shared in sizes), default=0)
        own = sum(whole - one_shared for whole, one_shared in sizes)
        memory.all_mib[part] = round((own + shared) * PAGE_BYTES / 2**20, 1)
        memory.unshared_mib[part] = round(own * PAGE_BYTES / 2**20, 1)
    return memory


def _cpu_s(pid: int, children: Mapping[int, list[int]]) -> float:
    ticks = 0
    for member in _process_tree(pid, children):
        fields = _stat(member)
        # utime, stime, cutime, cstime
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / CLOCK_TICKS


def _process_tree(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    return [
        pid,
        *(one for child in children.get(pid, ()) for one in _process_tree(child, children)),
    ]


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal() and (fields := _stat(int(path.name))):
            found.setdefault(int(fields[1]), []).append(int(path.name))
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name; empty if the process has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(") ")[2].split()


def _memory_pages(pid: int) -> tuple[int, int]:
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0, 0
    return int(fields[1]), int(fields[2])


def _machine_s() -> tuple[float, float]:
    first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    ticks = [int(field) for field in first.split()[1:9]]
    idle = ticks[3] + ticks[4]  # iowait counts as idle
    return (sum(ticks) - idle) / CLOCK_TICKS, sum(ticks) / CLOCK_TICKS


def read_metrics(bind: Bind) -> dict[str, float]:
    """A service's metrics, by name with and without labels; empty if unreachable."""
    found: defaultdict[str, float] = defaultdict(float)
    try:
        with _opener.open(f"http://{bind}/metrics", timeout=METRICS_TIMEOUT_S) as answer:
            text = answer.read().decode()
    except OSError:
        return found
    for line in text.splitlines():
        if not line.startswith("#") and "_bucket{" not in line:
            name, _, value = line.rpartition(" ")
            found[name] += float(value)
            if "{" in name:
                found[name.partition("{")[0]] += float(value)
    return found


def describe_machine() -> dict[str, object]:
    """Describe the machine: cores, CPU, memory, kernel."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = Path("/proc/meminfo").read_text(encoding="ascii").split()[1]
    uname = os.uname()
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "memory_gib": round(int(memory) / 2**20, 1),
        "kernel": f"{uname.sysname} {uname.release} {uname.machine}",
    }
