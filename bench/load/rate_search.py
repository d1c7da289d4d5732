"""The highest rate that is held: found by steps, on one stack with one set of connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.load.fixtures import Say
from bench.load.report import is_held, measurement_report
from bench.load.run import LoadRun, Measurement

STEP_S = 20
FACTOR = 1.3  # from one step to the next, until one is too much
CLOSE_ENOUGH = 1.06
MOST_STEPS = 12
CONFIRM_FACTOR = 0.95  # what held for a short while only is tried a little slower
MOST_CONFIRMS = 4
LEAST_INTERVAL_S = 0.05


@dataclass
class Search:
    """What is known so far: the rates that were held, and those that were not. Pure."""

    rate_per_s: float
    held: float = 0.0
    not_held: float = float("inf")
    steps: int = 0
    tried: list[float] = field(default_factory=list)

    def note(self, was_held: bool) -> None:
        """The present rate was held, or not: choose the next."""
        self.tried.append(self.rate_per_s)
        self.steps += 1
        if was_held:
            self.held = max(self.held, self.rate_per_s)
        else:
            self.not_held = min(self.not_held, self.rate_per_s)
        if self.not_held == float("inf"):
            self.rate_per_s *= FACTOR
        elif self.held == 0.0:
            self.rate_per_s /= FACTOR
        else:
            self.rate_per_s = (self.held * self.not_held) ** 0.5

    @property
    def is_over(self) -> bool:
        """Whether another step would teach little."""
        return self.steps >= MOST_STEPS or self.not_held <= self.held * CLOSE_ENOUGH


def find_limit(run: LoadRun, say: Say) -> tuple[Measurement, dict[str, Any]]:
    """Search, then hold the rate found for the whole duration, or a little less of it.

    The measurement is the confirming one.
    """
    options = run.options
    search = Search(options.rate_per_s)
    steps: list[dict[str, Any]] = []
    full: list[str] = []

    def step(rate_per_s: float, duration_s: int) -> Measurement:
        interval_s = max(LEAST_INTERVAL_S, options.devices / rate_per_s)
        say(f"limit: {rate_per_s:,.0f} fixes/s, a fix every {interval_s:.2f} s, {duration_s} s")
        # The first step warms the chain up, all that follow begin with a warm one.
        warm_up_s = options.warm_up_of(interval_s) if steps else options.warm_up_s
        measured = run.measure(interval_s, duration_s, warm_up_s)
        found = measurement_report(measured)
        steps.append(
            {
                "rate_due_per_s": found["rate_due_per_s"],
                "rate_per_s": found["rate_per_s"],
                "duration_s": duration_s,
                "held": found["held"],
                "p99_to_commit_ms": found["latency_ms"]["publish_to_commit"]["p99"],
                "cpu_us_per_fix": found["cpu_us_per_fix"]["total"],
                "machine_busy": found["machine_busy"],
                "missing": found["missing"],
                "full": found["full"],
            }
        )
        verdict = "held" if found["held"] else "not held: " + "; ".join(found["full"])
        say(f"limit: {found['rate_per_s']:,.0f} fixes/s, {verdict}")
        return measured

    while not search.is_over:
        measured = step(search.rate_per_s, min(STEP_S, options.duration_s))
        search.note(is_held(measured))
        if not steps[-1]["held"] and search.not_held == search.tried[-1]:
            full = steps[-1]["full"]
    rate_per_s = search.held or min(search.tried)
    held_per_s = 0.0
    for _ in range(MOST_CONFIRMS):
        measured = step(rate_per_s, options.duration_s)
        if is_held(measured):
            held_per_s = steps[-1]["rate_per_s"]
            break
        full = steps[-1]["full"]
        rate_per_s *= CONFIRM_FACTOR
    return measured, {"rate_per_s": held_per_s, "full": full, "steps": steps}
