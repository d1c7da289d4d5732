"""The errors of a phone's GPS receiver.

The error is correlated over about 40 s, as reflections are, with a median of 5 m. One fix in a
hundred is off by more than 50 m (a cell tower, a narrow street). `accuracy_m` is the radius that
contains about 68 % of such errors.
"""

from __future__ import annotations

import math
import random

MEDIAN_ERROR_M = 5.0
SIGMA_M = MEDIAN_ERROR_M / math.sqrt(2 * math.log(2))  # per axis: a Rayleigh median is 1.177 sigma
RADIUS_68_M = SIGMA_M * math.sqrt(-2 * math.log(1 - 0.68))
CORRELATION_S = 40.0
OUTLIER_SHARE = 0.01
OUTLIER_MIN_M = 51.0
OUTLIER_MEAN_MORE_M = 40.0


class Receiver:
    """One phone's receiver, with its own correlated error."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._east = rng.gauss(0, SIGMA_M)
        self._north = rng.gauss(0, SIGMA_M)
        self._at_s: float | None = None

    def observe(self, x: float, y: float, now_s: float) -> tuple[float, float, float]:
        """Return the observed position for a true one: (x, y, accuracy_m), metres."""
        rng = self._rng
        if rng.random() < OUTLIER_SHARE:
            error_m = OUTLIER_MIN_M + rng.expovariate(1 / OUTLIER_MEAN_MORE_M)
            angle = rng.uniform(0, math.tau)
            accuracy_m = error_m * rng.uniform(0.8, 1.5)
            return x + error_m * math.cos(angle), y + error_m * math.sin(angle), accuracy_m
        elapsed_s = CORRELATION_S if self._at_s is None else now_s - self._at_s
        self._at_s = now_s
        keep = math.exp(-max(elapsed_s, 0.0) / CORRELATION_S)
        fresh = SIGMA_M * math.sqrt(1 - keep * keep)
        self._east = self._east * keep + rng.gauss(0, 1) * fresh
        self._north = self._north * keep + rng.gauss(0, 1) * fresh
        return x + self._east, y + self._north, RADIUS_68_M * rng.uniform(0.85, 1.15)
