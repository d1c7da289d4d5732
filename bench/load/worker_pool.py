"""The worker processes: generators and viewers. They stop when their standard input closes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from doorstep.errors import DoorstepError
from ops.stack.settings import PROJECT

WEIGHT = 1 / 3  # of all generators and the viewers together
AUTOGROUP_EVERY_S = 0.11
AUTOGROUP_TRIES = 50
STOP_TIMEOUT_S = 10.0
RESPONSE_TIMEOUT_S = 60.0


class WorkerFailed(DoorstepError):
    """A worker process ended unexpectedly."""


class Worker:
    """One process that reads commands and writes statistics, both as JSON lines.

    `weight` is its CPU weight relative to other processes.
    """

    def __init__(
        self,
        module: str,
        plan: Mapping[str, Any],
        folder: Path,
        name: str,
        *,
        weight: float = 1.0,
    ) -> None:
        path = folder / f"{name}.json"
        path.write_text(json.dumps(plan), encoding="ascii")
        self.name = name
        self._errors = folder / f"{name}.err"
        self._responses: queue.Queue[dict[str, Any]] = queue.Queue()
        self._unread: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=PROJECT,
                # Ctrl-C goes to the coordinator, which stops the workers in order. Linux shares
                # the cores between sessions first, so a session gets its own weight.
                start_new_session=True,
            )
        self.pid = self._process.pid
        set_weight(self.pid, weight)
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self.latest: dict[str, Any] = {}
        self._reader = threading.Thread(target=self._read, name=name, daemon=True)
        self._reader.start()

    def send(self, command: Mapping[str, Any]) -> None:
        """Send a command. Raises WorkerFailed."""
        self.check()
        try:
            self._stdin.write(json.dumps(command).encode() + b"\n")
            self._stdin.flush()
        except OSError as exc:
            raise WorkerFailed(f"{self.name} has exited: {self._last_error()}") from exc

    def receive(self) -> dict[str, Any]:
        """Wait for the response to a command. Raises WorkerFailed."""
        try:
            return self._responses.get(timeout=RESPONSE_TIMEOUT_S)
        except queue.Empty:
            raise WorkerFailed(f"{self.name} did not respond: {self._last_error()}") from None

    def drain(self) -> list[dict[str, Any]]:
        """Return the statistics received since the last call. Raises WorkerFailed."""
        self.check()
        with self._lock:
            unread, self._unread = self._unread, []
        return unread

    def check(self) -> None:
        """Raise WorkerFailed if the process has ended."""
        if self._process.poll() is not None:
            raise WorkerFailed(f"{self.name} ended: {self._last_error()}")

    def stop(self) -> None:
        """Close standard input; kill the process if it does not exit."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._stdout.close()

    def _read(self) -> None:
        for line in self._stdout:
            stats = json.loads(line)
            if "ledger" in stats or "latency" in stats:
                self._responses.put(stats)
                continue
            with self._lock:
                self._unread.append(stats)
                self.latest = stats

    def _last_error(self) -> str:
        text = self._errors.read_text(encoding="utf-8", errors="replace").strip()
        return text.splitlines()[-1] if text else "no error output"


def set_weight(pid: int, weight: float) -> None:
    """Set the CPU weight of a process and its session, relative to 1.

    A step of niceness is a factor of 1.25. Without autogroups the process's niceness applies.
    """
    nice = min(19, round(-math.log(weight, 1.25)))
    with contextlib.suppress(OSError):  # the process has just ended
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    autogroup = Path(f"/proc/{pid}/autogroup")
    for _ in range(AUTOGROUP_TRIES):
        try:
            autogroup.write_text(str(nice), encoding="ascii")
        except BlockingIOError:  # Linux allows ten a second for all processes
            time.sleep(AUTOGROUP_EVERY_S)
        except OSError:
            return
        else:
            return


class WorkerPool:
    """All workers of a run; leaving the context stops them.

    In production the devices and viewers run on other machines. Together they have a third of the
    CPU weight of one service, so that the load test does not slow what it measures. Latency counts
    from the due time, so a slow worker makes the results worse, never better.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.generators: list[Worker] = []
        self.viewers: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        for worker in [*self.generators, *self.viewers]:
            worker.stop()

    def start_generators(self, plans: Sequence[Mapping[str, Any]]) -> None:
        """Start a generator for each plan. It connects its devices."""
        for number, plan in enumerate(plans, start=1):
            name = f"generator-{number}"
            self.generators.append(
                Worker(
                    "bench.load.generator",
                    plan,
                    self._folder,
                    name,
                    weight=WEIGHT / (len(plans) + 1),
                )
            )

    def start_viewers(self, plan: Mapping[str, Any]) -> None:
        """Start the viewers process."""
        self.viewers.append(
            Worker(
                "bench.load.viewers",
                plan,
                self._folder,
                "viewers",
                weight=WEIGHT / (len(self.generators) + 1),
            )
        )

    def stop_viewers(self) -> None:
        """Stop the viewers."""
        while self.viewers:
            self.viewers.pop().stop()

    def broadcast(self, command: Mapping[str, Any]) -> None:
        """Send the same command to every worker."""
        for worker in [*self.generators, *self.viewers]:
            worker.send(command)

    def totals(self) -> Counter[str]:
        """The generators' latest totals, summed."""
        total: Counter[str] = Counter()
        for worker in self.generators:
            total.update({k: v for k, v in worker.latest.items() if isinstance(v, int)})
        return total

    def collect_ledgers(self) -> Iterator[tuple[int, list[int], int, list[tuple[int, int]]]]:
        """Each generator's (number, messages by device, count of PUBACKs, latencies)."""
        for number, worker in enumerate(self.generators):
            worker.send({"do": "ledger"})
            response = worker.receive()
            path = Path(response["ledger"])
            generated, acked, beyond = json.loads(path.read_text(encoding="ascii"))
            path.unlink()
            pubacks = sum(acked) + sum(len(seqs) for seqs in beyond.values())
            yield (
                number,
                generated,
                pubacks,
                [(bucket, count) for bucket, count in response["puback"]],
            )
