"""A server process that can be killed and started again on its own data."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, SIGTERM, Signals

from doorstep.settings import Bind
from ops.servers.waiting import wait_until
from ops.stack import probes
from ops.stack.addresses import any_free_port
from ops.stack.settings import PROJECT

HOST = "127.0.0.1"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
ENDING_SIGNALS = (SIGKILL, SIGTERM, SIGINT)


class ServerProcess:
    """One server in its own folder, by default with its log in `folder/log`.

    A subclass gives `argv()`. Without a `port` it takes a free one and keeps it over restarts.
    """

    def __init__(
        self, folder: Path, port: int | None = None, *, log_file: Path | None = None
    ) -> None:
        self.folder = folder
        self.port = port or any_free_port()
        self._log_file = log_file or folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def argv(self) -> list[str]:
        """Return the command that runs the server in the foreground."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Return the server's environment variables."""
        return os.environ

    def is_ready(self) -> bool:
        """Say whether the server answers."""
        return probes.listens(Bind(HOST, self.port))

    def launch(self) -> None:
        """Start the process and return at once."""
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv(), env=self.environment(), cwd=PROJECT, stdout=log, stderr=log
            )

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        self.launch()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the server is ready. Raises RuntimeError if its process has ended."""
        wait_until(self._is_up, START_TIMEOUT_S, f"{type(self).__name__} on port {self.port}")

    @property
    def pid(self) -> int:
        """The process id of the last start."""
        return self._started().pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while the process runs."""
        return None if self._process is None else self._process.poll()

    def log(self) -> str:
        """Return all that the server has logged, over all starts."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def signal(self, number: Signals) -> None:
        """Send a signal. For one that ends the process, wait for the end."""
        process = self._started()
        process.send_signal(number)
        if number in ENDING_SIGNALS:
            process.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.signal(SIGKILL)

    def end(self, number: Signals) -> None:
        """Send a signal that ends the process, and wait for the end. No-op if it does not run."""
        if self._is_running():
            self.signal(number)

    def stop(self) -> None:
        """Terminate the process if it runs, and kill it if SIGTERM does not end it."""
        if self._process is None or not self._is_running():
            return
        os.kill(self._process.pid, SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{type(self).__name__} has not been started")
        return self._process

    def _is_up(self) -> bool:
        if not self._is_running():
            raise RuntimeError(f"{type(self).__name__} ended: {self.log()[-2000:]}")
        return self.is_ready()
