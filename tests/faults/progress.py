"""The progress of a run: a bar on a terminal, and plain lines elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

Say = Callable[[str], None]
BAR_CHARS = 24
CLEAR_LINE = "\r\x1b[2K"


class Progress:
    """Prints lines. On a terminal the bar stays below them."""

    def __init__(
        self, total: int, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total
        self._stream = stream
        self._clock = clock
        self._began_s = clock()
        self._done = self._failed = 0
        self._current = ""
        self._has_bar = stream.isatty()

    def say(self, line: str) -> None:
        """Print a line."""
        self._stream.write(f"{CLEAR_LINE if self._has_bar else ''}{line}\n")
        self._draw()

    def begin(self, name: str) -> None:
        """Name what runs now."""
        self._current = name
        self._draw()

    def finish(self, *, ok: bool) -> None:
        """Count one that has ended."""
        self._done += 1
        self._failed += not ok
        self._current = ""
        self._draw()

    def close(self) -> None:
        """Remove the bar."""
        if self._has_bar:
            self._stream.write(CLEAR_LINE)
            self._has_bar = False
        self._stream.flush()

    def text(self) -> str:
        """Return the bar, the counts, the time left, and what runs now."""
        filled = BAR_CHARS * self._done // max(1, self._total)
        bar = "#" * filled + "." * (BAR_CHARS - filled)
        parts = [f"[{bar}] {self._done}/{self._total}", f"{self._failed} failed"]
        if 0 < self._done < self._total:
            per_fault_s = (self._clock() - self._began_s) / self._done
            left_min = per_fault_s * (self._total - self._done) / 60
            parts.append(f"about {max(1, round(left_min))} min left")
        return ", ".join(parts) + (f": {self._current}" if self._current else "")

    def _draw(self) -> None:
        if self._has_bar:
            columns = shutil.get_terminal_size().columns
            self._stream.write(CLEAR_LINE + self.text()[: columns - 1])
        self._stream.flush()
