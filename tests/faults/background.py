"""Load that runs in a thread during a fault."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self


class Background:
    """Runs `work()` in a thread until the block ends. Its exception is raised at the end."""

    def __init__(self, name: str) -> None:
        self.stopping = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def prepare(self) -> None:
        """Prepare before the thread starts."""

    async def work(self) -> None:
        """Run until `stopping` is set."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.prepare()
        self._thread.start()
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._thread.join()
        if self.failure is not None and _e is None:
            raise self.failure

    def _run(self) -> None:
        try:
            asyncio.run(self.work())
        except BaseException as exc:  # noqa: BLE001 - a thread's boundary: __exit__ raises it again
            self.failure = exc
