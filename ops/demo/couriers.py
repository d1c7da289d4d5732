"""The couriers' process of a demo, and how simulators are started."""

from __future__ import annotations

import fcntl
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from data.cities import CityFolder
from ops.console import print_line
from ops.stack.errors import StackError
from ops.stack.processes import module_argv
from ops.stack.settings import PROJECT
from ops.stack.stack import Stack
from ops.stack.users import as_user

PREFIX = "courier-"
STOP_TIMEOUT_S = 80.0  # a simulator leaves when all fixes are committed, or after 2 ack periods
RESTART_AFTER_S = 1.0
POLL_S = 0.5
MIN_UPTIME_S = 20.0  # the couriers start in about 5 s: a process that ends sooner has failed
MAX_FAILED_STARTS = 3
GROUP_FRAME = re.compile(r"^\s*(\+[-+]+( [0-9.]+ -+)?$|\|(\s+|$))")


class CouriersProcess:
    """The process of simulators.couriers. Restarted when it ends, unless it fails to start.

    It starts a new shift. A restarted process continues the shift of the one that has ended.
    """

    def __init__(
        self,
        stack: Stack,
        couriers: int,
        speedup: float,
        reporting: str | None = None,
        city: CityFolder | None = None,
    ) -> None:
        self._argv = [
            *module_argv("couriers"),
            *("--prefix", PREFIX),
            *("--couriers", str(couriers)),
            *(("--city-dir", str(city.path.absolute())) if city else ()),
            *("--speedup", f"{speedup:g}"),
            *(("--reporting", reporting) if reporting else ()),
        ]
        self._environment = stack.client_environment()
        self._log_file = stack.paths.logs / "couriers.log"
        self._process = self._start("--new-shift")
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
        reason = failure_of(self._log_file)
        if self._failed_starts == MAX_FAILED_STARTS:
            raise StackError(f"the couriers failed to start {MAX_FAILED_STARTS} times: {reason}")
        print_line(f"the couriers' process ended with status {status}, restarted: {reason}")
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

    def _start(self, *more: str) -> subprocess.Popen[bytes]:
        return start_simulator([*self._argv, *more], self._environment, self._log_file)


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


def wait_for_earlier_couriers(stack: Stack) -> None:
    """Wait until the couriers of an earlier demo have ended, if that was killed.

    They commit their fixes first. Until then they lock their journal.
    """
    lock_file = stack.paths.journals / "couriers.lock"
    deadline = time.monotonic() + STOP_TIMEOUT_S
    is_reported = False
    while _is_locked(lock_file) and time.monotonic() < deadline:
        if not is_reported:
            print_line("waiting for the couriers of an earlier demo to stop")
            is_reported = True
        time.sleep(POLL_S)


def _is_locked(lock_file: Path) -> bool:
    if not lock_file.exists():
        return False
    with lock_file.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def failure_of(log_file: Path) -> str:
    """Read the last line of a log without the frame of an exception group, and name the log."""
    lines = log_file.read_text(encoding="utf-8", errors="replace").split("\n")
    texts = (GROUP_FRAME.sub("", line).strip() for line in reversed(lines))
    return f"{next(filter(None, texts), 'its log is empty')} (log: {log_file})"
