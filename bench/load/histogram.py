"""Latencies counted in buckets 2 % wide, which can be sent, added and asked for percentiles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

PER_E = 50.0  # buckets per factor e: each is exp(1/50) = 1.02 times as wide as the one before
LEAST_MS = 0.01
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def bucket_of(ms: float) -> int:
    """The bucket of a latency; sql/load/latency.sql says the same."""
    return math.floor(math.log(max(LEAST_MS, ms)) * PER_E)


class Histogram:
    """Counts by bucket. A percentile is right within 1 %."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})

    def add(self, ms: float) -> None:
        """Count one latency."""
        bucket = bucket_of(ms)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1

    def merge(self, counts: Iterable[tuple[int, int]]) -> None:
        """Add what was counted elsewhere: (bucket, count)."""
        for bucket, count in counts:
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self.counts.values())

    def percentile(self, share: float) -> float | None:
        """The least latency, ms, that a share of all don't exceed; None without any."""
        wanted = math.ceil(share * self.total)
        for bucket in sorted(self.counts):
            wanted -= self.counts[bucket]
            if wanted <= 0:
                return float(f"{math.exp((bucket + 0.5) / PER_E):.4g}")
        return None

    def summary(self) -> dict[str, float | None]:
        """p50, p95, p99 and max, ms."""
        found = {name: self.percentile(share) for name, share in SHARES.items()}
        return {**found, "max": self.percentile(1.0)}
