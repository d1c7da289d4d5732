"""The benchmarks, and the conversion of each result to a common format.

    {"name", "runs", "unit", "ours": {min, median, max},
     "others": {variant: {min, median, max, ratio}}}

`ratio` is a variant's median over ours. A benchmark of several operations has `parts` instead:
{operation: {"ours", "others"}}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.measure import Measurements

Result = dict[str, Any]

FIX_COST = "µs of the server's CPU per fix"


def _as_it_is(result: Result) -> Result:
    return result


def _measured(
    name: str, unit: str, ours: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]
) -> Result:
    """Convert figures given as {min, median, max}."""
    median = ours["median"]
    compared = {
        variant: {**one, "ratio": round(one["median"] / median, 2) if median else None}
        for variant, one in others.items()
    }
    return {"name": name, "runs": None, "unit": unit, "ours": dict(ours), "others": compared}


def _once(name: str, unit: str, figures: Mapping[str, float]) -> Result:
    """Convert one figure per variant; the first is ours."""
    measurements = Measurements(name, unit, [])
    for variant, figure in figures.items():
        measurements.set_runs(variant, [figure])
    return measurements.result()


def _fanout(result: Result) -> Result:
    costs = dict(result["cpu_us_per_push"])
    return _measured("fanout", "µs of CPU per push", costs.pop("ours"), costs)


def _battery(result: Result) -> Result:
    return {"name": "battery", "runs": 1, "unit": "% saved, metres", **result}


def _demand(result: Result) -> Result:
    return {"name": "demand", "runs": 1, "unit": "% saved", **result}


def _storm(result: Result) -> Result:
    runs = [one["last_snapshot_s"] for one in result["storms"]]
    measurements = Measurements("storm", "s until the last viewer has a snapshot", [])
    measurements.set_runs("storm", runs)
    measurements.set_runs("pages", [one["last_snapshot_s"] for one in result["pages"]])
    return measurements.result() | {"details": result}


def _record_fixes(result: Result) -> Result:
    costs = {f"batches of {size}": one for size, one in result["server_cpu_us_per_fix"].items()}
    ours = max(costs, key=lambda variant: int(variant.split()[-1]))
    shaped = _measured("record-fixes", FIX_COST, costs.pop(ours), costs)
    return shaped | {"ours_is": ours, "runs": result["batches"], "details": result}


def _write_path(result: Result) -> Result:
    parts = {
        f"{each} of a driver": _measured(
            "write-path",
            FIX_COST,
            costs["cpu_us_per_fix"]["record_fixes"],
            {"bare": costs["cpu_us_per_fix"]["bare"]},
        )
        for each, costs in result["fixes_of_a_driver"].items()
    }
    runs = result["batches"]
    return {"name": "write-path", "runs": runs, "unit": FIX_COST, "parts": parts, "details": result}


def _attacks(result: Result) -> Result:
    latencies = {
        name: {
            "min": one["due_to_commit_ms"]["p50"],
            "median": one["due_to_commit_ms"]["p95"],
            "max": one["due_to_commit_ms"]["p99"],
        }
        for name, one in result["variants"].items()
    }
    ours = next(iter(latencies))
    shaped = _measured(
        "attacks", "ms, due to commit: p50, p95, p99", latencies.pop(ours), latencies
    )
    return shaped | {"ours_is": ours, "details": result}


def _growth(result: Result) -> Result:
    points = {
        f"{point} {'drivers' if curve == 'drivers' else 'history'}": one["cpu_us_per_fix"]
        for curve in ("drivers", "rows")
        for point, one in result.get(curve, {}).items()
        if isinstance(one, dict)
    }
    ours = next(iter(points))
    shaped = _measured("growth", FIX_COST, points.pop(ours), points)
    return shaped | {"ours_is": ours, "runs": result["batches"], "details": result}


def _history(result: Result) -> Result:
    figures = {
        "packed, fix_chunk": result["packed"]["bytes_per_fix"]["all"],
        "plain, fix_history": result["plain"]["bytes_per_fix"]["all"],
        "Traccar 6.13 (measured separately)": result["traccar_bytes_per_position"],
    }
    cost = _once("history", "bytes per fix at rest, with indexes", figures)
    return cost | {"details": result}


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark: its module, its purpose, and the arguments of a short run."""

    name: str
    module: str
    purpose: str
    quick: tuple[str, ...]
    shape: Callable[[Result], Result] = _as_it_is
    is_quick: bool = False  # in the default set of `./run bench`: seconds, not minutes


BENCHMARKS = {
    one.name: one
    for one in (
        Benchmark(
            "decode",
            "bench.decode",
            "decoding a fix in batches, vs json.loads and pydantic",
            ("--fixes", "20000", "--runs", "3"),
            is_quick=True,
        ),
        Benchmark(
            "bridge",
            "bench.bridge",
            "MQTT to Kafka: the bridge, vs paho with one callback per message",
            ("--messages", "20000", "--runs", "3"),
            is_quick=True,
        ),
        Benchmark(
            "ingest",
            "bench.ingest",
            "ingesting a fix end to end, vs one PATCH and one INSERT per fix",
            ("--fixes", "20000", "--patch-fixes", "1000", "--runs", "2"),
        ),
        Benchmark(
            "foreign-phones",
            "bench.foreign_phones",
            "ingesting fixes of which 5 % are from phone apps, vs native devices alone",
            ("--fixes", "8000", "--drivers", "100", "--runs", "1"),
        ),
        Benchmark(
            "record-fixes",
            "bench.record_fixes",
            "record_fixes by batch size, on the database alone",
            ("--drivers", "10000", "--batches", "10", "--batch", "500", "5000"),
            _record_fixes,
        ),
        Benchmark(
            "write-path",
            "bench.write_path",
            "record_fixes, vs a bare COPY and INSERT of the same rows",
            ("--drivers", "10000", "--batches", "10"),
            _write_path,
        ),
        Benchmark(
            "attacks",
            "bench.attacks",
            "commits of other drivers beside odd seqs, voids, endless boots, a flood",
            ("--drivers", "2000", "--fixes", "8000"),
            _attacks,
        ),
        Benchmark(
            "growth",
            "bench.growth",
            "cost per fix as the fleet and the history grow",
            ("--drivers", "1000", "10000", "--rows", "0", "--batches", "10"),
            _growth,
        ),
        Benchmark(
            "history",
            "bench.history",
            "bytes at rest: packed days, vs the plain table and Traccar",
            ("--drivers", "8", "--rounds", "1"),
            _history,
        ),
        Benchmark(
            "reads",
            "bench.reads",
            "GET /track, nearest, tiles, history, vs plain FastAPI",
            ("--drivers", "2000", "--requests", "60", "--runs", "2"),
        ),
        Benchmark(
            "storm",
            "bench.storm",
            "18,000 viewers come back after a crash; 1,000 pages open at once",
            ("--viewers", "500", "--orders", "100", "--pages", "100", "--runs", "1"),
            _storm,
        ),
        Benchmark(
            "commands",
            "bench.commands",
            "an order's commands, vs plain tables",
            ("--drivers", "2000", "--orders", "20", "--rounds", "2"),
        ),
        Benchmark(
            "offers",
            "bench.offers",
            "the job that offers orders, vs the nearest couriers by hand",
            ("--orders", "0", "100", "--seconds", "5"),
        ),
        Benchmark(
            "eta",
            "bench.eta",
            "estimated arrivals, vs straight line and constant speed",
            ("--seeds", "1", "--days", "2", "--held-out", "1", "--deliveries", "60"),
        ),
        Benchmark(
            "fanout",
            "bench.fanout",
            "a push to a viewer, vs a simple endpoint and a bare write",
            ("--viewers", "500", "--many", "0", "--rounds", "5", "--runs", "3"),
            _fanout,
            is_quick=True,
        ),
        Benchmark(
            "pages",
            "bench.pages",
            "time until the customer's page shows state and map, CPU and network slowed down",
            ("--runs", "2"),
        ),
        Benchmark(
            "fleet-page",
            "bench.fleet_page",
            "frame times of the dispatcher's page with 10,000 moving drivers",
            ("--seconds", "5", "--runs", "1"),
        ),
        Benchmark(
            "battery",
            "bench.battery",
            "adaptive sampling on recorded traces, vs sending every fix",
            ("--goal-runs", "40"),
            _battery,
        ),
        Benchmark(
            "demand",
            "bench.demand",
            "reporting by demand on recorded traces, vs sending each fix alone",
            ("--goal-runs", "40"),
            _demand,
        ),
    )
}
