"""A service beside the stack's own: a second driver_events, a bridge for a second broker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import httpx

from ops.stack.paths import as_user
from ops.stack.settings import PROJECT

if TYPE_CHECKING:
    from tests.faults.lab import Lab

END_TIMEOUT_S = 30.0


class SideSimulators:
    """`with SideSimulators(lab, "driver_events", "driver_events-2", {...}) as second:`

    It runs with what the stack's own is told, but for `own`, on a port of its own; its log is
    `name`. Nobody starts it again when it is killed, but `start`.
    """

    def __init__(
        self,
        lab: Lab,
        part: str,
        name: str,
        own: Mapping[str, str],
        end: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self._part = part
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.bind = f"127.0.0.1:{free.getsockname()[1]}"
        self._environment = lab.environment_of(part) | {f"{part.upper()}_BIND": self.bind} | own
        self._log_file = lab.stack.paths.logs / f"{name}.log"
        self._end = end
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, or start it again."""
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                as_user(None, [sys.executable, "-m", self._part], on_parent_death="KILL"),
                env=self._environment,
                cwd=PROJECT,
                stdout=log,
                stderr=log,
            )

    def is_ready(self) -> bool:
        """Whether it says so."""
        try:
            return httpx.get(f"http://{self.bind}/readyz", timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def end(self, number: signal.Signals) -> None:
        """Send it a signal and wait for its end, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)
            self._process.wait(END_TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(self._end)
