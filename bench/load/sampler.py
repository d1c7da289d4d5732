"""Sample progress and backlogs once a second, and find the saturated parts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.load.histogram import Histogram
from bench.load.resource_usage import read_metrics
from bench.load.worker_pool import WorkerPool
from ops.stack.addresses import Addresses, reach

FULL_CORE = 0.9  # of a core: a single-threaded process is saturated
FULL_MACHINE = 0.95  # of all cores
MAX_LAG_MS = 500.0
SAMPLE_AFTER_S = 0.1
BACKLOG_GROWTH = 0.3  # of a second's fixes, each second

POSITIONS = 'doorstep_bridge_messages_total{topic="position"}'
ACKED = "doorstep_bridge_acked_total"
FIXES = "doorstep_driver_events_fixes_total"


@dataclass(frozen=True, slots=True)
class Sample:
    """The state at one instant. Backlogs are counted in fixes."""

    at_s: float
    connected: int
    published: int
    pubacks: int
    committed: int
    lag_ms: float  # of the generators behind their schedule
    at_broker: int  # PUBACKed, and not yet delivered to the bridge
    at_bridge: int
    in_kafka: int
    puback_p99_ms: float | None

    @property
    def behind(self) -> int:
        """Published fixes that are not committed."""
        return max(0, self.published - self.committed)


@dataclass
class Sampler:
    """Takes and keeps a sample every second, counted from `start()`."""

    workers: WorkerPool
    addresses: Addresses
    per_message: float  # fixes, of all messages
    progress: Callable[[str], None]
    samples: list[Sample] = field(default_factory=list)
    _baseline: Counter[str] = field(default_factory=Counter)

    def start(self) -> None:
        """Count from now on."""
        self._baseline = self._counts()
        self.samples = []

    def run_until(self, at_s: float) -> None:
        """Take a sample every second until an instant."""
        while (remaining_s := at_s - time.time()) > 0:
            # The workers report on the full second.
            time.sleep(min(remaining_s, (1.0 + SAMPLE_AFTER_S - time.time() % 1) % 1 or 1))
            if time.time() < at_s:
                self.take_sample()

    def take_sample(self) -> Sample:
        """Take one sample."""
        puback = Histogram()
        lag_ms = 0.0
        for worker in self.workers.generators:
            for stats in worker.drain():
                puback.merge((bucket, count) for bucket, count in stats["puback"])
                lag_ms = max(lag_ms, stats["lag_ms"])
        for worker in self.workers.viewers:
            worker.drain()
        counts = self._counts()
        counts.subtract(self._baseline)
        confirmed = round(counts[ACKED] * self.per_message)
        received = round(counts[POSITIONS] * self.per_message)
        sample = Sample(
            at_s=time.time(),
            connected=self.workers.totals()["connected"],
            published=counts["published"],
            pubacks=counts["pubacks"],
            committed=counts[FIXES],
            lag_ms=lag_ms,
            at_broker=max(0, counts["pubacks"] - received),
            at_bridge=max(0, received - confirmed),
            in_kafka=max(0, confirmed - counts[FIXES]),
            puback_p99_ms=puback.percentile(0.99),
        )
        before = self.samples[-1] if self.samples else None
        self.samples.append(sample)
        self.progress(describe(sample, before))
        return sample

    def _counts(self) -> Counter[str]:
        bridge = read_metrics(reach(self.addresses.bridge))
        driver_events = read_metrics(reach(self.addresses.driver_events))
        totals = self.workers.totals()
        return Counter(
            {
                "published": totals["published"],
                "pubacks": totals["pubacks"],
                **{name: int(bridge.get(name, 0)) for name in (POSITIONS, ACKED)},
                FIXES: int(driver_events.get(FIXES, 0)),
            }
        )


def describe(now: Sample, before: Sample | None) -> str:
    """One progress line."""
    rate = committed = 0.0
    if before is not None:
        seconds = now.at_s - before.at_s
        rate = (now.published - before.published) / seconds
        committed = (now.committed - before.committed) / seconds
    p99 = f"{now.puback_p99_ms:.0f} ms" if now.puback_p99_ms is not None else "-"
    return (
        f"connected {now.connected:,}  "
        f"{rate:,.0f}/s published, {committed:,.0f}/s committed, {now.behind:,} in flight "
        f"(broker {now.at_broker:,}, bridge {now.at_bridge:,}, Kafka {now.in_kafka:,})  "
        f"lag {now.lag_ms:.0f} ms  PUBACK p99 {p99}"
    )


def find_saturated(
    samples: Sequence[Sample],
    rate_per_s: float,
    cores_used: Mapping[str, float],
    machine_share: float,
) -> list[str]:
    """The saturated parts, as text. `cores_used` is by process."""
    found = []
    if machine_share >= FULL_MACHINE:
        found.append(f"the machine: its cores were busy {machine_share:.0%} of the time")
    found += [
        f"{name}: {usage:.0%} of a core"
        for name, usage in sorted(cores_used.items(), key=lambda item: -item[1])
        if usage >= FULL_CORE
    ]
    lag_ms = [one.lag_ms for one in samples]
    if lag_ms and sorted(lag_ms)[len(lag_ms) // 2] > MAX_LAG_MS:
        found.append(f"the generators: {max(lag_ms):,.0f} ms behind their schedule")
    if len(samples) >= 3:
        first, last = samples[0], samples[-1]
        seconds = last.at_s - first.at_s
        for where, name in (
            ("at_broker", "the brokers' queues for the bridge"),
            ("at_bridge", "the bridge"),
            ("in_kafka", "Kafka's driver-pos, behind driver_events"),
        ):
            grown = (getattr(last, where) - getattr(first, where)) / seconds
            if grown > BACKLOG_GROWTH * rate_per_s / 10:
                found.append(f"{name}: {grown:,.0f} more fixes each second")
    return found
