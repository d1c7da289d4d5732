"""The couriers' process of a demo, and how simulators are started."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from ops.console import print_line
from ops.stack.errors import StackError
from ops.stack.processes import module_argv
from ops.stack.settings import PROJECT
from ops.stack.stack import Stack
from ops.stack.users import as_user

PREFIX = "courier-"
STOP_TIMEOUT_S = 80.0  # a simulator leaves when all fixes are committed, or after 2 ack periods
RESTART_AFTER_S = 1.0
MIN_UPTIME_S = 20.0  # the couriers start in about 5 s: a process that ends sooner has failed
MAX_FAILED_STARTS = 3


class CouriersProcess:
    """The process of simulators.couriers. Restarted when it ends, unless it fails to start."""

    def __init__(self, stack: Stack, couriers: int, speedup: float, reporting: str = "all") -> None:
        self._argv = [
            *module_argv("couriers"),
            *("--prefix", PREFIX),
            *("--couriers", str(couriers)),
            *("--speedup", f"{speedup:g}"),
            *("--reporting", reporting),
        ]
        self._environment = stack.client_environment()
        self._log_file = stack.paths.logs / "couriers.log"
        self._process = self._start()
        self._started_at = time.monotonic()
        self._failed_starts = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def keep_running(self) -> None:
        """Restart the process if it has ended. Raises StackError after repeated failed starts."""
        status, uptime_s = self._process.poll(), time.monotonic() - self._started_at
        if status is None or uptime_s < RESTART_AFTER_S:
            return
        self._failed_starts = self._failed_starts + 1 if uptime_s < MIN_UPTIME_S else 0
        if self._failed_starts == MAX_FAILED_STARTS:
            reason = last_line(self._log_file)
            raise StackError(f"the couriers failed to start {MAX_FAILED_STARTS} times: {reason}")
        print_line(f"the couriers' process ended with status {status}: restarted")
        self._process = self._start()
        self._started_at = time.monotonic()

    def stop(self) -> None:
        """Stop the process in order: it ends when all its fixes are committed."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            print_line("the couriers did not stop in time: killed")
            self.kill()

    def kill(self) -> None:
        """Kill the process. Its journal keeps what is not committed."""
        self._process.kill()
        self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        return start_simulator(self._argv, self._environment, self._log_file)


def start_simulator(
    argv: list[str], environment: Mapping[str, str], log_file: Path
) -> subprocess.Popen[bytes]:
    """Start a simulator that ends with this process."""
    with log_file.open("ab") as log:
        return subprocess.Popen(
            as_user(None, argv, on_parent_death="TERM"),
            env=environment,
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches this process, which stops it in order
        )


def last_line(log_file: Path) -> str:
    """Read the last line of a log that is not blank."""
    lines = log_file.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "its log is empty")
