"""Search for the highest sustained rate, on one stack with one set of connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.load.fixtures import Progress
from bench.load.report import is_sustained, measurement_report
from bench.load.run import LoadRun, Measurement

STEP_S = 20
FACTOR = 1.3  # between steps, until a rate is not sustained
PRECISION = 1.06
MAX_STEPS = 12
CONFIRM_FACTOR = 0.95  # reduction after a failed confirmation
MAX_CONFIRMATIONS = 4
MIN_INTERVAL_S = 0.05


@dataclass
class RateSearch:
    """The state of the search: the sustained and unsustained rates so far. No I/O."""

    rate_per_s: float
    sustained: float = 0.0
    unsustained: float = float("inf")
    steps: int = 0
    tried: list[float] = field(default_factory=list)

    def record(self, was_sustained: bool) -> None:
        """Record the result of the current rate, and choose the next one."""
        self.tried.append(self.rate_per_s)
        self.steps += 1
        if was_sustained:
            self.sustained = max(self.sustained, self.rate_per_s)
        else:
            self.unsustained = min(self.unsustained, self.rate_per_s)
        if self.unsustained == float("inf"):
            self.rate_per_s *= FACTOR
        elif self.sustained == 0.0:
            self.rate_per_s /= FACTOR
        else:
            self.rate_per_s = (self.sustained * self.unsustained) ** 0.5

    @property
    def is_done(self) -> bool:
        """Whether the search has converged."""
        return self.steps >= MAX_STEPS or self.unsustained <= self.sustained * PRECISION


def find_limit(run: LoadRun, progress: Progress) -> tuple[Measurement, dict[str, Any]]:
    """Search, then confirm the rate found, or a slightly lower one, for the whole duration.

    Returns the confirming measurement and the report of the search.
    """
    options = run.options
    search = RateSearch(options.rate_per_s)
    steps: list[dict[str, Any]] = []
    saturated: list[str] = []

    def step(rate_per_s: float, duration_s: int) -> Measurement:
        interval_s = max(MIN_INTERVAL_S, options.devices / rate_per_s)
        progress(
            f"rate search: {rate_per_s:,.0f} fixes/s, interval {interval_s:.2f} s, {duration_s} s"
        )
        # The first step warms the pipeline up for all that follow.
        warm_up_s = options.warm_up_of(interval_s) if steps else options.warm_up_s
        measured = run.measure(interval_s, duration_s, warm_up_s)
        found = measurement_report(measured)
        steps.append(
            {
                "rate_due_per_s": found["rate_due_per_s"],
                "rate_per_s": found["rate_per_s"],
                "duration_s": duration_s,
                "sustained": found["sustained"],
                "p99_to_commit_ms": found["latency_ms"]["publish_to_commit"]["p99"],
                "cpu_us_per_fix": found["cpu_us_per_fix"]["total"],
                "machine_busy": found["machine_busy"],
                "missing": found["missing"],
                "saturated": found["saturated"],
            }
        )
        outcome = (
            "sustained" if found["sustained"] else "not sustained: " + "; ".join(found["saturated"])
        )
        progress(f"rate search: {found['rate_per_s']:,.0f} fixes/s, {outcome}")
        return measured

    while not search.is_done:
        measured = step(search.rate_per_s, min(STEP_S, options.duration_s))
        search.record(is_sustained(measured))
        if not steps[-1]["sustained"] and search.unsustained == search.tried[-1]:
            saturated = steps[-1]["saturated"]
    rate_per_s = search.sustained or min(search.tried)
    sustained_per_s = 0.0
    for _ in range(MAX_CONFIRMATIONS):
        measured = step(rate_per_s, options.duration_s)
        if is_sustained(measured):
            sustained_per_s = steps[-1]["rate_per_s"]
            break
        saturated = steps[-1]["saturated"]
        rate_per_s *= CONFIRM_FACTOR
    return measured, {"rate_per_s": sustained_per_s, "saturated": saturated, "steps": steps}
