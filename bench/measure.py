"""The runs of several variants, and their result in the format that `./run bench` prints."""

from __future__ import annotations

import json
import signal
import statistics
import sys
from collections.abc import Sequence
from types import FrameType

DIGITS = 2


class Measurements:
    """Figures per variant, in `unit`. The first one is ours, the reference."""

    def __init__(self, name: str, unit: str, variants: Sequence[str]) -> None:
        self._name = name
        self._unit = unit
        self._figures: dict[str, list[float]] = {variant: [] for variant in variants}

    def add(self, variant: str, figure: float) -> None:
        """Add one run of a variant, and print it."""
        self._figures[variant].append(figure)
        progress(f"{self._name}: {variant} {figure:,.{DIGITS}f} {self._unit}")

    def set_runs(self, variant: str, figures: Sequence[float]) -> None:
        """Set all runs of a variant."""
        self._figures[variant] = list(figures)

    def result(self) -> dict[str, object]:
        """Minimum, median and maximum per variant; `ratio` is a variant's median over ours."""
        (_, ours), *others = self._figures.items()
        median = statistics.median(ours)
        return {
            "name": self._name,
            "runs": len(ours),
            "unit": self._unit,
            "ours": spread(ours),
            "others": {
                variant: {
                    **spread(figures),
                    "ratio": round(statistics.median(figures) / median, DIGITS) if median else None,
                }
                for variant, figures in others
            },
        }

    def part(self) -> dict[str, object]:
        """The result as that of one operation, in a benchmark of several."""
        result = self.result()
        return {"ours": result["ours"], "others": result["others"]}


def spread(figures: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    median = statistics.median(figures)
    return {
        "min": round(min(figures), DIGITS),
        "median": round(median, DIGITS),
        "max": round(max(figures), DIGITS),
    }


def percentiles(figures: Sequence[float]) -> dict[str, float]:
    """Count, p50, p95 and p99."""
    ranked = sorted(figures)
    return {
        "count": len(ranked),
        **{f"p{p}": round(ranked[len(ranked) * p // 100], DIGITS) for p in (50, 95, 99)},
    }


def progress(line: str) -> None:
    """Print a line on stderr: the result alone is on stdout."""
    print(line, file=sys.stderr, flush=True)


def stop(_signal: int, _frame: FrameType | None) -> None:
    """Exit on SIGTERM, so that servers are stopped and folders erased."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # ignore a second one
    sys.exit(128 + signal.SIGTERM)


def report(measurements: Measurements) -> int:
    """Print the result as the last line, for `./run bench`. Returns the exit status."""
    sys.stdout.write(json.dumps(measurements.result(), ensure_ascii=False) + "\n")
    return 0
