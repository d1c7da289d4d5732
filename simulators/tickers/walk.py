"""Random walks. Pure: time and chance are passed in."""

from __future__ import annotations

import random
from collections.abc import Mapping

SOURCE_ID = "tickers"
MOST = 1000  # series that a source may have


def measure_of(number: int) -> str:
    """Name a ticker's measure; tickers count from 1."""
    return f"{number:03}"


class Walks:
    """Each ticker's value. One that is switched off keeps it, and goes on from there."""

    def __init__(self, known: Mapping[str, float], rng: random.Random) -> None:
        self._values = dict(known)
        self._rng = rng
        self.count = 0

    def resize(self, count: int) -> None:
        """Have so many tickers from now on, at most MOST."""
        self.count = min(max(0, count), MOST)

    def step(self) -> dict[str, float]:
        """Move every ticker up or down by one; give their values by measure."""
        moved = {}
        for number in range(1, self.count + 1):
            measure = measure_of(number)
            value = self._values.get(measure, 0.0) + self._rng.choice((-1.0, 1.0))
            moved[measure] = self._values[measure] = value
        return moved
