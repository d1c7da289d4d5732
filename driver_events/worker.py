"""A thread that does one thing again and again, and whose end is never silent."""

from __future__ import annotations

import threading
from collections.abc import Callable

from doorstep.errors import Unavailable
from doorstep.telemetry import get_logger
from driver_events import metrics
from driver_events.recorder import DataError

MOST_WAIT_S = 5.0  # between two tries while something is away


class Worker:
    """Calls `work` every `every_s`, or at once after `wake()` or when it returns True.

    Unavailable is waited out. Anything else ends the thread, and `check()` raises it where the
    process will end of it.
    """

    def __init__(self, name: str, work: Callable[[], bool], every_s: float) -> None:
        self._work = work
        self._every_s = every_s
        self._log = get_logger(worker=name)
        self._well = metrics.WORKER_WELL.labels(name)
        self._woken = threading.Event()
        self._stopping = False
        self._failure: BaseException | None = None
        self.is_well = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Don't wait for the next time."""
        self._woken.set()

    def check(self) -> None:
        """Raise what the thread has died of."""
        if self._failure is not None:
            raise self._failure

    def stop(self, timeout_s: float = 10.0) -> None:
        """End after the work under way."""
        self._stopping = True
        self._woken.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._repeat()
        except BaseException as exc:  # noqa: BLE001 - raised again by check()
            self.is_well = False
            self._failure = exc

    def _repeat(self) -> None:
        wait_s, said = self._every_s, False
        while not self._stopping:
            self._woken.clear()
            try:
                more = self._work()
                self.is_well, said = True, False
                self._well.set(1)
                wait_s = 0.0 if more else self._every_s
            except (Unavailable, DataError) as exc:
                if not said:
                    self._log.warning("waiting", error=str(exc))
                self.is_well, said = False, True
                self._well.set(0)
                wait_s = min(MOST_WAIT_S, max(0.25, 2 * wait_s))
                self._pause(wait_s)
                continue
            self._woken.wait(wait_s)

    def _pause(self, wait_s: float) -> None:
        """Wait out a trouble; being woken for more work must not shorten it."""
        pause = threading.Event()
        step_s = 0.1
        while wait_s > 0 and not self._stopping:
            pause.wait(step_s)
            wait_s -= step_s
