"""A mergeable latency histogram with buckets 2 % wide."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

PER_E = 50.0  # buckets per factor e: each is exp(1/50) = 1.02 times the previous one
MIN_MS = 0.01
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def bucket_of(ms: float) -> int:
    """The bucket of a latency. sql/load/latency.sql computes the same."""
    return math.floor(math.log(max(MIN_MS, ms)) * PER_E)


class Histogram:
    """Counts per bucket. Percentiles have an error of at most 1 %."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})

    def add(self, ms: float) -> None:
        """Count one latency."""
        bucket = bucket_of(ms)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1

    def merge(self, counts: Iterable[tuple[int, int]]) -> None:
        """Add the (bucket, count) pairs of another histogram."""
        for bucket, count in counts:
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    @property
    def total(self) -> int:
        """The number of latencies."""
        return sum(self.counts.values())

    def percentile(self, share: float) -> float | None:
        """The latency, ms, that a share of all does not exceed; None if empty."""
        remaining = math.ceil(share * self.total)
        for bucket in sorted(self.counts):
            remaining -= self.counts[bucket]
            if remaining <= 0:
                return float(f"{math.exp((bucket + 0.5) / PER_E):.4g}")
        return None

    def summary(self) -> dict[str, float | None]:
        """p50, p95, p99 and max, ms."""
        found = {name: self.percentile(share) for name, share in SHARES.items()}
        return {**found, "max": self.percentile(1.0)}
