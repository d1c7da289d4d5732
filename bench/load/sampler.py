"""Second by second: how far each part is, what is on the way between them, and what is full."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.load.histogram import Histogram
from bench.load.resource_usage import read_metrics
from bench.load.worker_pool import WorkerPool
from ops.stack.addresses import Addresses, reach

FULL_CORE = 0.9  # of a core: a part of one thread that uses so much can't do more
FULL_MACHINE = 0.95  # of all cores
LATE_MS = 500.0
LOOK_AFTER_S = 0.1
GROWS_BY_S = 0.3  # of a second's fixes, each second

POSITIONS = 'doorstep_bridge_messages_total{topic="position"}'
ACKED = "doorstep_bridge_acked_total"
FIXES = "doorstep_driver_events_fixes_total"


@dataclass(frozen=True, slots=True)
class Sample:
    """One second. What lies between two parts is counted in fixes."""

    at_s: float
    connected: int
    published: int
    pubacks: int
    committed: int
    late_ms: float  # the generators, behind their schedule
    at_broker: int  # PUBACKed, and not yet with the bridge
    at_bridge: int
    in_kafka: int
    puback_p99_ms: float | None

    @property
    def behind(self) -> int:
        """Published and not committed."""
        return max(0, self.published - self.committed)


@dataclass
class Sampler:
    """Looks once a second and keeps what it saw. `marks` subtracts what was there before."""

    crew: WorkerPool
    addresses: Addresses
    per_message: int
    say: Callable[[str], None]
    moments: list[Sample] = field(default_factory=list)
    _zero: Counter[str] = field(default_factory=Counter)

    def begin(self) -> None:
        """Count from here on."""
        self._zero = self._counts()
        self.moments = []

    def until(self, at_s: float) -> None:
        """Look once a second, say what is to be seen, and return at an instant."""
        while (rest_s := at_s - time.time()) > 0:
            # The children tell their figures on the second.
            time.sleep(min(rest_s, (1.0 + LOOK_AFTER_S - time.time() % 1) % 1 or 1))
            if time.time() < at_s:
                self.look()

    def look(self) -> Sample:
        """Take one look."""
        puback = Histogram()
        late_ms = 0.0
        for child in self.crew.generators:
            for figures in child.take():
                puback.merge((bucket, count) for bucket, count in figures["puback"])
                late_ms = max(late_ms, figures["late_ms"])
        for child in self.crew.viewers:
            child.take()
        counts = self._counts()
        counts.subtract(self._zero)
        handed_on = counts[ACKED] * self.per_message
        moment = Sample(
            at_s=time.time(),
            connected=self.crew.sums()["connected"],
            published=counts["published"],
            pubacks=counts["pubacks"],
            committed=counts[FIXES],
            late_ms=late_ms,
            at_broker=max(0, counts["pubacks"] - counts[POSITIONS] * self.per_message),
            at_bridge=max(0, counts[POSITIONS] * self.per_message - handed_on),
            in_kafka=max(0, handed_on - counts[FIXES]),
            puback_p99_ms=puback.percentile(0.99),
        )
        before = self.moments[-1] if self.moments else None
        self.moments.append(moment)
        self.say(describe(moment, before))
        return moment

    def _counts(self) -> Counter[str]:
        bridge = read_metrics(reach(self.addresses.bridge))
        driver_events = read_metrics(reach(self.addresses.driver_events))
        sums = self.crew.sums()
        return Counter(
            {
                "published": sums["published"],
                "pubacks": sums["pubacks"],
                **{name: int(bridge.get(name, 0)) for name in (POSITIONS, ACKED)},
                FIXES: int(driver_events.get(FIXES, 0)),
            }
        )


def describe(now: Sample, before: Sample | None) -> str:
    """One line for the screen."""
    rate = committed = 0.0
    if before is not None:
        seconds = now.at_s - before.at_s
        rate = (now.published - before.published) / seconds
        committed = (now.committed - before.committed) / seconds
    p99 = f"{now.puback_p99_ms:.0f} ms" if now.puback_p99_ms is not None else "-"
    return (
        f"connected {now.connected:,}  "
        f"{rate:,.0f}/s published, {committed:,.0f}/s committed, {now.behind:,} on the way "
        f"(broker {now.at_broker:,}, bridge {now.at_bridge:,}, Kafka {now.in_kafka:,})  "
        f"late {now.late_ms:.0f} ms  PUBACK p99 {p99}"
    )


def find_full(
    moments: Sequence[Sample],
    rate_per_s: float,
    cores_used: Mapping[str, float],
    machine_share: float,
) -> list[str]:
    """Name what is full, in words; empty if nothing is. `cores_used` is by process."""
    found = []
    if machine_share >= FULL_MACHINE:
        found.append(f"the machine: its cores were busy {machine_share:.0%} of the time")
    found += [
        f"{name}: {used:.0%} of a core"
        for name, used in sorted(cores_used.items(), key=lambda item: -item[1])
        if used >= FULL_CORE
    ]
    late_ms = [one.late_ms for one in moments]
    if late_ms and sorted(late_ms)[len(late_ms) // 2] > LATE_MS:
        found.append(f"the generators: {max(late_ms):,.0f} ms behind their schedule")
    if len(moments) >= 3:
        first, last = moments[0], moments[-1]
        seconds = last.at_s - first.at_s
        for where, name in (
            ("at_broker", "the brokers' queues for the bridge"),
            ("at_bridge", "the bridge"),
            ("in_kafka", "Kafka's driver-pos, which driver_events does not empty"),
        ):
            grown = (getattr(last, where) - getattr(first, where)) / seconds
            if grown > GROWS_BY_S * rate_per_s / 10:
                found.append(f"{name}: {grown:,.0f} fixes more each second")
    return found
