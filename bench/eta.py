"""`python -m bench.eta`: the error of estimated arrivals, on held-out simulated days.

Four variants, evaluated every 20 s of every ride on the held-out days:

    straight   the straight line at a constant speed
    constant   road distance at a constant speed
    learned    tracking_api's estimate, learned from the training days
    and two parts of it: learned speeds without drivers' paces, and the prior's speeds

The constant speeds are fitted to the same training days, for the least median error. Prints
JSON; --plot draws the figures with matplotlib (the `bench` extra).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.eta_days import SimulatedDays
from data.cities import bundled_city
from doorstep.geo import distance_m
from eta.estimate import Estimator, Task
from eta.features import City
from eta.learning import learn
from eta.model import HOURS, STREET_CLASSES, EtaModel, Phase, RouteChoice
from eta.rides import Delivery
from eta.streets import load_streets
from eta.travel_time_cache import TravelTimeCache

Floats = NDArray[np.float64]
TEN_MPS = EtaModel(
    street_mps=tuple((10.0,) * HOURS for _ in STREET_CLASSES),
    crossing_s=0.0,
    arrival_s=0.0,
    route_choice=RouteChoice.SPEEDS,  # the shortest
)
SPEEDS_MPS = np.arange(1.0, 12.0, 0.02)


def main() -> int:
    """Run the benchmark, print its result, and plot it on request."""
    options = _parser().parse_args()
    city = City(load_streets(bundled_city()))
    runs = [
        _run(city, seed, options)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
    ]
    report = {"options": {k: v for k, v in vars(options).items() if k != "plot"}}
    report |= {"summary": _summary([run["figures"] for run in runs])}
    print(json.dumps(report, indent=1))
    if options.plot:
        from bench.eta_plot import draw

        draw(runs, options.plot)
    return 0


def _run(city: City, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    days = SimulatedDays(seed, options.riders)
    training = [one for day in range(options.days) for one in days.deliver(day, options.deliveries)]
    held_out = [
        one
        for day in range(options.days, options.days + options.held_out)
        for one in days.deliver(day, options.deliveries)
    ]
    began = time.process_time()
    model = learn({"": city}, training, training[-1].at_customer_at)
    learning_s = time.process_time() - began
    print(f"seed {seed}: learned from {len(training)} in {learning_s:.0f} s", file=sys.stderr)
    tests = [pair for one in held_out for pair in one.tasks()]
    ours = TaskEstimator(city, model)
    errors: dict[Phase, dict[str, Floats]] = {}
    inside: dict[Phase, float] = {}
    for phase in Phase:
        of_phase = [(task, remaining_s) for task, remaining_s in tests if task.phase is phase]
        remaining = np.array([remaining_s for _, remaining_s in of_phase])
        estimates, low, high = ours.estimate([task for task, _ in of_phase])
        errors[phase] = {"learned": estimates - remaining}
        inside[phase] = float(np.mean((low <= remaining) & (remaining <= high)))
        if phase is not Phase.TO_CUSTOMER:
            continue
        tasks = [task for task, _ in of_phase]
        without_paces = TaskEstimator(city, replace(model, driver_pace={}), with_trail=False)
        prior = TaskEstimator(city, EtaModel())
        errors[phase] |= {
            "speeds, no paces": without_paces.estimate(tasks)[0] - remaining,
            "nothing learned": prior.estimate(tasks)[0] - remaining,
        }
        training_tasks = [
            pair for one in _every_nth(training) for pair in one.tasks() if pair[0].phase is phase
        ]
        truth = np.array([remaining_s for _, remaining_s in training_tasks])
        for name, metres in (("straight", _straight_m), ("constant", _road_m(city))):
            speed_mps = _best_speed(metres([task for task, _ in training_tasks]), truth)
            errors[phase][name] = metres(tasks) / speed_mps - remaining
    figures: dict[str, Any] = {"learning_s": learning_s}
    for phase, variants in errors.items():
        figures[phase.value] = {
            "estimates": len(variants["learned"]),
            "inside_band": inside[phase],
        } | {
            name: {f"p{q}_s": float(np.percentile(np.abs(error), q)) for q in (50, 90)}
            for name, error in variants.items()
        }
    variants = figures[Phase.TO_CUSTOMER.value]
    figures["p50_below_constant"] = 1 - variants["learned"]["p50_s"] / variants["constant"]["p50_s"]
    return {"figures": figures, "errors": errors[Phase.TO_CUSTOMER], "model": model}


class TaskEstimator:
    """An estimator with one model, for many tasks."""

    def __init__(self, city: City, model: EtaModel, *, with_trail: bool = True) -> None:
        self._estimator = Estimator(TravelTimeCache(city, model, max_runs_per_s=float("inf")))
        self._with_trail = with_trail

    def estimate(self, tasks: Sequence[Task]) -> tuple[Floats, Floats, Floats]:
        """Remaining seconds at the median, and the band's ends."""
        rows = []
        for task in tasks:
            requests = task if self._with_trail else replace(task, trail=task.trail[-1:])
            one = self._estimator.estimate(requests)
            rows.append((np.nan,) * 3 if one is None else (one.seconds, one.p10_s, one.p90_s))
        found = np.array(rows).reshape(len(rows), 3)
        return found[:, 0], found[:, 1], found[:, 2]


def _straight_m(tasks: Sequence[Task]) -> Floats:
    return np.array([distance_m(task.trail[-1].lon_lat, task.door) for task in tasks])


def _road_m(city: City) -> Callable[[Sequence[Task]], Floats]:
    """The shortest distance by road."""
    travel_times = TravelTimeCache(city, TEN_MPS, max_runs_per_s=float("inf"))

    def metres(tasks: Sequence[Task]) -> Floats:
        found = []
        for task in tasks:
            remaining = travel_times.remaining(task.trail[-1].lon_lat, task.door, 0)
            found.append(np.nan if remaining is None else remaining.metres)
        return np.array(found)

    return metres


def _best_speed(metres: Floats, remaining_s: Floats) -> float:
    errors = [np.nanmedian(np.abs(metres / mps - remaining_s)) for mps in SPEEDS_MPS]
    return float(SPEEDS_MPS[int(np.argmin(errors))])


def _every_nth(deliveries: Sequence[Delivery], most: int = 600) -> Sequence[Delivery]:
    return deliveries[:: max(1, len(deliveries) // most)]


def _summary(runs: Sequence[Any]) -> Any:
    """Minimum, median and maximum of each figure over all seeds."""
    if isinstance(runs[0], dict):
        return {name: _summary([run[name] for run in runs]) for name in runs[0]}
    low, high = min(runs), max(runs)
    return [round(value, 3) for value in (low, statistics.median(runs), high)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench.eta", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="fleets, each with its days (3)")
    parser.add_argument("--first-seed", type=int, default=1, metavar="N", help="their first (1)")
    parser.add_argument("--days", type=int, default=4, help="to learn from (4)")
    parser.add_argument("--held-out", type=int, default=2, help="days to evaluate on (2)")
    parser.add_argument("--deliveries", type=int, default=150, help="a day (150)")
    parser.add_argument("--riders", type=int, default=30, help="in the fleet (30)")
    parser.add_argument("--plot", type=Path, metavar="SVG")
    return parser


if __name__ == "__main__":
    sys.exit(main())
