"""Random walks. Pure: random numbers are passed in."""

from __future__ import annotations

import random
from collections.abc import Mapping

SOURCE_ID = "tickers"
MAX_TICKERS = 1000  # the limit of series per source


def measure_of(number: int) -> str:
    """Name the measure of a ticker; numbers start at 1."""
    return f"{number:03}"


class Walks:
    """The tickers' values. A ticker that is switched off keeps its value."""

    def __init__(self, values: Mapping[str, float], rng: random.Random) -> None:
        self._values = dict(values)
        self._rng = rng
        self.count = 0

    def resize(self, count: int) -> None:
        """Set the number of tickers, MAX_TICKERS at most."""
        self.count = min(max(0, count), MAX_TICKERS)

    def step(self) -> dict[str, float]:
        """Move every ticker by +1 or -1, and return the values by measure."""
        moved = {}
        for number in range(1, self.count + 1):
            measure = measure_of(number)
            value = self._values.get(measure, 0.0) + self._rng.choice((-1.0, 1.0))
            moved[measure] = self._values[measure] = value
        return moved
