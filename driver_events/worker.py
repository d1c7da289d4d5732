"""A thread that repeats one task; `check()` re-raises its exception."""

from __future__ import annotations

import threading
from collections.abc import Callable

from doorstep.errors import Unavailable
from doorstep.telemetry import get_logger
from driver_events import metrics
from driver_events.recorder import DataError

MAX_BACKOFF_S = 1.0  # while a dependency is unavailable; ready within seconds of its return


class Worker:
    """Calls `work` every `every_s`, or immediately after `wake()` or when it returns True.

    After Unavailable it backs off and tries again. Any other exception ends the thread; `check()`
    raises it in the main thread, which ends the process.
    """

    def __init__(self, name: str, work: Callable[[], bool], every_s: float) -> None:
        self._work = work
        self._every_s = every_s
        self._log = get_logger(worker=name)
        self._healthy = metrics.WORKER_HEALTHY.labels(name)
        self._woken = threading.Event()
        self._stopping = False
        self._failure: BaseException | None = None
        self.is_healthy = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Run the task now instead of at the next interval."""
        self._woken.set()

    def check(self) -> None:
        """Raise the exception that ended the thread."""
        if self._failure is not None:
            raise self._failure

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop after the current run."""
        self._stopping = True
        self._woken.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._repeat()
        except BaseException as exc:  # noqa: BLE001 - raised again by check()
            self.is_healthy = False
            self._failure = exc

    def _repeat(self) -> None:
        wait_s, logged = self._every_s, False
        while not self._stopping:
            self._woken.clear()
            try:
                more = self._work()
                self.is_healthy, logged = True, False
                self._healthy.set(1)
                wait_s = 0.0 if more else self._every_s
            except (Unavailable, DataError) as exc:
                if not logged:
                    self._log.warning("waiting", error=str(exc))
                self.is_healthy, logged = False, True
                self._healthy.set(0)
                wait_s = min(MAX_BACKOFF_S, max(0.25, 2 * wait_s))
                self._pause(wait_s)
                continue
            self._woken.wait(wait_s)

    def _pause(self, wait_s: float) -> None:
        """Back off; `wake()` does not shorten it."""
        pause = threading.Event()
        step_s = 0.1
        while wait_s > 0 and not self._stopping:
            pause.wait(step_s)
            wait_s -= step_s
