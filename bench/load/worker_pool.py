"""The child processes: generators and viewers. They end when their standard input does."""

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
STOP_WITHIN_S = 10.0
ANSWER_WITHIN_S = 60.0


class ChildFailed(DoorstepError):
    """A generator or the viewers ended before their time."""


class Child:
    """One process that takes commands and gives figures, both as JSON lines.

    With a `weight` below 1 it yields the cores to whatever else wants them, in that proportion.
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
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._fresh: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=PROJECT,
                # Ctrl-C is for the conductor, who ends us in order. And Linux shares the cores out
                # between sessions first, so that its own priority counts.
                start_new_session=True,
            )
        self.pid = self._process.pid
        set_weight(self.pid, weight)
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self.latest: dict[str, Any] = {}
        self._reader = threading.Thread(target=self._read, name=name, daemon=True)
        self._reader.start()

    def tell(self, command: Mapping[str, Any]) -> None:
        """Give a command. Raises ChildFailed."""
        self.check()
        try:
            self._stdin.write(json.dumps(command).encode() + b"\n")
            self._stdin.flush()
        except OSError as exc:
            raise ChildFailed(f"{self.name} is gone: {self._said()}") from exc

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to a command. Raises ChildFailed."""
        try:
            return self._answers.get(timeout=ANSWER_WITHIN_S)
        except queue.Empty:
            raise ChildFailed(f"{self.name} does not answer: {self._said()}") from None

    def take(self) -> list[dict[str, Any]]:
        """Take the figures that have come since the last time. Raises ChildFailed."""
        self.check()
        with self._lock:
            fresh, self._fresh = self._fresh, []
        return fresh

    def check(self) -> None:
        """Raise ChildFailed if it has ended."""
        if self._process.poll() is not None:
            raise ChildFailed(f"{self.name} ended: {self._said()}")

    def end(self) -> None:
        """Let it end; kill it if it doesn't."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._stdout.close()

    def _read(self) -> None:
        for line in self._stdout:
            figures = json.loads(line)
            if "ledger" in figures or "answer" in figures:
                self._answers.put(figures)
                continue
            with self._lock:
                self._fresh.append(figures)
                self.latest = figures

    def _said(self) -> str:
        text = self._errors.read_text(encoding="utf-8", errors="replace").strip()
        return text.splitlines()[-1] if text else "it said nothing"


def set_weight(pid: int, weight: float) -> None:
    """Let a process and its session have the cores at this weight beside others' 1.

    A step of niceness is a factor of 1.25. Where sessions have none of their own (no autogroups,
    or a container's), the process's decides.
    """
    nice = min(19, round(-math.log(weight, 1.25)))
    with contextlib.suppress(OSError):  # it has just ended: whoever asks it hears so
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    autogroup = Path(f"/proc/{pid}/autogroup")
    for _ in range(AUTOGROUP_TRIES):
        try:
            autogroup.write_text(str(nice), encoding="ascii")
        except BlockingIOError:  # Linux takes ten a second, of all processes
            time.sleep(AUTOGROUP_EVERY_S)
        except OSError:
            return
        else:
            return


class WorkerPool:
    """All children of a run; `with` ends them.

    The phones and the viewers would be on other machines. Together they have a third of the weight
    of a single server or service here: what is measured does not wait for what measures it, and as
    a fix is late from when it was due, their own waiting makes the figures worse.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.generators: list[Child] = []
        self.viewers: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        for child in [*self.generators, *self.viewers]:
            child.end()

    def start_generators(self, plans: Sequence[Mapping[str, Any]]) -> None:
        """Start a generator for each plan: it connects its devices at once."""
        for number, plan in enumerate(plans, start=1):
            name = f"generator-{number}"
            self.generators.append(
                Child(
                    "bench.load.generator",
                    plan,
                    self._folder,
                    name,
                    weight=WEIGHT / (len(plans) + 1),
                )
            )

    def start_viewers(self, plan: Mapping[str, Any]) -> None:
        """Start the viewers."""
        self.viewers.append(
            Child(
                "bench.load.viewers",
                plan,
                self._folder,
                "viewers",
                weight=WEIGHT / (len(self.generators) + 1),
            )
        )

    def end_viewers(self) -> None:
        """Send the viewers home."""
        while self.viewers:
            self.viewers.pop().end()

    def tell_all(self, command: Mapping[str, Any]) -> None:
        """Give every child the same command."""
        for child in [*self.generators, *self.viewers]:
            child.tell(command)

    def sums(self) -> Counter[str]:
        """The generators' newest figures, added up."""
        total: Counter[str] = Counter()
        for child in self.generators:
            total.update({k: v for k, v in child.latest.items() if isinstance(v, int)})
        return total

    def ledgers(self) -> Iterator[tuple[int, list[int], int, list[tuple[int, int]]]]:
        """Each generator's (number, messages made by device, how many have a PUBACK, latencies)."""
        for number, child in enumerate(self.generators):
            child.tell({"do": "ledger"})
            answer = child.answer()
            path = Path(answer["ledger"])
            made, acked, beyond = json.loads(path.read_text(encoding="ascii"))
            path.unlink()
            pubacks = sum(acked) + sum(len(seqs) for seqs in beyond.values())
            yield number, made, pubacks, [(bucket, count) for bucket, count in answer["puback"]]
