"""What a full run prints while it runs: each failure at once, and every minute what is running."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

SECONDS_BETWEEN_LINES = 60.0


@dataclass(slots=True)
class Progress:
    """A plugin of the process that hands out the tests: what a run says before it is cut off."""

    reporter: pytest.TerminalReporter
    started: float = field(default_factory=time.monotonic)
    printed: float = field(default_factory=time.monotonic)
    running: dict[str, float] = field(default_factory=dict)
    ended: int = 0

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note the start of a test."""
        self.running[nodeid] = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a failure or an error when it happens, with the first line of its message."""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            lines = (crash.message if crash else report.longreprtext).strip().splitlines()
            first = lines[0] if lines else ""
            self._print(f"{report.nodeid}: failed in its {report.when}: {first}")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Note the end of a test. Print which ones run, if a minute has passed."""
        self.running.pop(nodeid, None)
        self.ended += 1
        now = time.monotonic()
        if now - self.printed >= SECONDS_BETWEEN_LINES:
            self.printed = now
            tests = ", ".join(
                f"{name} for {now - start:.0f} s" for name, start in self.running.items()
            )
            since = now - self.started
            self._print(f"{self.ended} tests in {since:.0f} s; now {tests or 'none'}")

    def _print(self, line: str) -> None:
        self.reporter.ensure_newline()
        self.reporter.write_line(line)
