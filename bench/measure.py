"""Runs of several ways to do one thing, and their result in the shape that `./run bench` prints."""

from __future__ import annotations

import json
import signal
import statistics
import sys
from collections.abc import Sequence
from types import FrameType

DIGITS = 2


class Measured:
    """Figures of each way, in `unit`; the first way is ours, the others are compared with it."""

    def __init__(self, name: str, unit: str, ways: Sequence[str]) -> None:
        self._name = name
        self._unit = unit
        self._figures: dict[str, list[float]] = {way: [] for way in ways}

    def add(self, way: str, figure: float) -> None:
        """Add one run of one way, and say it."""
        self._figures[way].append(figure)
        print(f"{self._name}: {way} {figure:,.{DIGITS}f} {self._unit}", file=sys.stderr, flush=True)

    def take(self, way: str, figures: Sequence[float]) -> None:
        """Take all runs of one way."""
        self._figures[way] = list(figures)

    def result(self) -> dict[str, object]:
        """Least, middle and most of each way; `ratio` is a way's middle over ours."""
        (_, ours), *others = self._figures.items()
        middle = statistics.median(ours)
        return {
            "name": self._name,
            "runs": len(ours),
            "unit": self._unit,
            "ours": spread(ours),
            "others": {
                way: spread(figures)
                | {"ratio": round(statistics.median(figures) / middle, DIGITS) if middle else None}
                for way, figures in others
            },
        }


def spread(figures: Sequence[float]) -> dict[str, float | None]:
    """Give the least, the middle and the most."""
    middle = statistics.median(figures)
    return {
        "min": round(min(figures), DIGITS),
        "median": round(middle, DIGITS),
        "max": round(max(figures), DIGITS),
    }


def stop(_signal: int, _frame: FrameType | None) -> None:
    """Let SIGTERM end a benchmark in order: its servers are stopped, its folders erased."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    sys.exit(128 + signal.SIGTERM)


def report(measured: Measured) -> int:
    """Print the result as the last line, for `./run bench`; the exit status."""
    sys.stdout.write(json.dumps(measured.result(), ensure_ascii=False) + "\n")
    return 0
