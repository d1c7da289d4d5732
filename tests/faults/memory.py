"""Each service killed for memory: it grows until its limit, under load, and gets SIGKILL there.

So the kernel does in a container with `mem_limit`. A cgroup of the service would need rights that a
container does not give. A thread of the service, which `sitecustomize` starts, takes the memory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from ops.servers.waiting import wait_until
from ops.stack.processes import BROKER_SYNC, SERVICES
from ops.stack.settings import PROJECT
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome

COMPOSE_FILE = PROJECT / "docker-compose.yml"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
UNITS = {"k": KIB, "m": MIB, "g": GIB}
GROWN_WITHIN_S = 120.0
POLL_S = 0.005
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
GROWS_FILE = "GROWS_FILE"  # the process grows while this file exists
GROWING = f"""
import os, threading, time

def grow():
    while not os.path.exists(os.environ["{GROWS_FILE}"]):
        time.sleep(0.1)
    taken = []
    while True:
        taken.append(b"x" * {4 * MIB})
        time.sleep(0.01)

if "{GROWS_FILE}" in os.environ:
    threading.Thread(target=grow, daemon=True).start()
"""


def kill_each_service(env: FaultEnvironment) -> Outcome:
    """Let one service after the other grow to its limit, and kill it there."""
    took_s, grew_s = {}, {}
    with _growing(env) as files:
        for part, file in files.items():
            pid, began = env.pid(part), time.monotonic()
            since = _kill_at(pid, memory_limit(part), file)
            grew_s[part] = since - began
            took_s[part] = env.wait_healthy(since=since)
            if env.pid(part) == pid:
                return Outcome(f"{part} was not restarted", None, ok=False)
    seen = ", ".join(
        f"{part} {seconds:.1f} s ({memory_limit(part) // MIB} MiB in {grew_s[part]:.1f} s)"
        for part, seconds in took_s.items()
    )
    return Outcome(f"killed at its limit, healthy after: {seen}", max(took_s.values()), ok=True)


@contextlib.contextmanager
def _growing(env: FaultEnvironment) -> Iterator[dict[str, Path]]:
    """Run the services so that each grows while its file exists."""
    folder = env.folder / "growing"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(GROWING, encoding="utf-8")
    files = {part: folder / part for part in (*SERVICES, BROKER_SYNC)}
    variables = {
        part: {
            GROWS_FILE: str(file),
            "PYTHONPATH": f"{folder}:{env.environment_of(part).get('PYTHONPATH', '')}".rstrip(":"),
        }
        for part, file in files.items()
    }
    with env.with_variables_of(variables):
        yield files


def _kill_at(pid: int, limit_bytes: int, file: Path) -> float:
    """Kill a process once it has grown to a limit. Returns `time.monotonic()` of the kill."""
    file.touch()
    try:
        wait_until(
            lambda: resident_bytes(pid) >= limit_bytes,
            GROWN_WITHIN_S,
            f"{file.name} has grown to {limit_bytes // MIB} MiB",
            poll_s=POLL_S,
        )
    finally:
        file.unlink()  # the process that replaces it stays small
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def resident_bytes(pid: int) -> int:
    """Return how much memory a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


def memory_limit(part: str) -> int:
    """Return a service's limit in docker-compose.yml, in bytes."""
    services = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))["services"]
    limit = str(services[part]["mem_limit"])
    return int(limit[:-1]) * UNITS[limit[-1]]


FAULTS = (
    Fault(
        32,
        "each service killed for memory, at its limit",
        "restarted, 0 lost",
        60,
        quick=False,
        run=kill_each_service,
    ),
)
