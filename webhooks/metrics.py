"""The Prometheus metrics of webhooks."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ATTEMPTS = Counter(
    "doorstep_webhooks_attempts", "Attempts to deliver an event, by what became of it", ["outcome"]
)
ATTEMPT_S = Histogram(
    "doorstep_webhooks_attempt_seconds",
    "Time of an attempt, until the answer or the error",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
PENDING = Gauge("doorstep_webhooks_pending", "Deliveries that wait, of webhooks that are on")
OLDEST_S = Gauge("doorstep_webhooks_oldest_seconds", "Age of the oldest delivery that waits")
