"""The report of a run: plain values, and a few lines for the screen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bench.load.options import LoadOptions
from bench.load.resource_usage import describe_machine
from bench.load.run import LoadRun, Measurement
from bench.load.sampler import find_full
from ops.ledger import Ledger

PARTS = (
    "generator",
    "mosquitto",
    "bridge",
    "kafka",
    "driver_events",
    "postgres",
    "tracking_api",
)
HELD_P99_MS = 1000.0
HELD_SHARE = 0.99  # of the fixes that fell due in the window were committed during it


def cpu_us_per_fix(measured: Measurement) -> dict[str, float]:
    """CPU time, user and system, by part, for each fix that was committed meanwhile.

    `total` is the parts of the chain and the generator; the viewers and driver_api, which takes no
    part in it, stand beside it.
    """
    before, after = measured.used
    fixes = max(1, measured.committed_in_window)
    each = {part: (after.cpu_s[part] - before.cpu_s[part]) / fixes * 1e6 for part in after.cpu_s}
    costs = {part: round(each.get(part, 0.0), 2) for part in PARTS}
    costs["total"] = round(sum(each.get(part, 0.0) for part in PARTS), 2)
    costs |= {part: round(cost, 2) for part, cost in each.items() if part not in PARTS}
    busy_s = after.machine_busy_s - before.machine_busy_s
    costs["machine"] = round(busy_s / fixes * 1e6, 2)  # whatever else it did included
    return costs


def is_held(measured: Measurement) -> bool:
    """Whether the rate was held: nothing missing, in time, and no backlog grown."""
    p99_ms = measured.lateness.latency.percentile(0.99)
    due = measured.lateness.latency.total
    return (
        measured.missing == 0
        and due > 0
        and p99_ms is not None
        and p99_ms <= HELD_P99_MS
        and measured.committed_in_window >= HELD_SHARE * _due_in_window(measured)
    )


def _due_in_window(measured: Measurement) -> float:
    return measured.rate_due_per_s * measured.duration_s


def what_is_full(measured: Measurement, processes: Mapping[str, float]) -> list[str]:
    """Name what is full, in words."""
    before, after = measured.used
    busy_s = after.machine_busy_s - before.machine_busy_s
    all_s = after.machine_all_s - before.machine_all_s
    return find_full(measured.moments, measured.rate_due_per_s, processes, busy_s / max(1.0, all_s))


def measurement_report(measured: Measurement) -> dict[str, Any]:
    """What one window has shown."""
    before, after = measured.used
    busy_s = after.machine_busy_s - before.machine_busy_s
    all_s = after.machine_all_s - before.machine_all_s
    fixes = max(1, measured.published_after - measured.published_before)
    grown = measured.history_bytes[1] - measured.history_bytes[0]
    return {
        "rate_per_s": round(measured.committed_in_window / measured.duration_s, 1),
        "rate_due_per_s": round(measured.rate_due_per_s, 1),
        "held": is_held(measured),
        "full": what_is_full(measured, measured.cores_used),
        "latency_ms": {
            "publish_to_puback": measured.puback.summary(),
            "publish_to_commit": measured.lateness.latency.summary(),
            "publish_to_viewer": measured.viewer.summary(),
        },
        "cpu_us_per_fix": cpu_us_per_fix(measured),
        "machine_busy": round(busy_s / max(1.0, all_s), 3),
        "rss_mib": measured.rss_mib,
        "bytes_per_fix": {
            "wire": round(measured.wire_bytes / max(1, measured.published_in_window), 1),
            "history": round(grown / fixes, 1),
        },
        "missing": measured.missing,
        "settled_after_s": measured.settled_after_s,
        "viewers": {"positions": measured.viewer.total},
    }


def build_report(run: LoadRun, measured: Measurement, ledger: Ledger) -> dict[str, Any]:
    """The whole report."""
    options: LoadOptions = run.options
    sums = run.crew.sums()
    window = measurement_report(measured)
    return {
        "devices": options.devices,
        "rate_per_s": window.pop("rate_per_s"),
        "fixes": {
            **ledger.fixes(),
            "pubacked": run.pubacks,
            "resent": sums["resent"],
            "agrees": ledger.agrees,
        },
        "latency_ms": window.pop("latency_ms"),
        "cpu_us_per_fix": window.pop("cpu_us_per_fix"),
        "rss_mib": window.pop("rss_mib"),
        "bytes_per_fix": window.pop("bytes_per_fix"),
        "machine": describe_machine(),
        **window,
        "held": window["held"] and ledger.lost == 0 and ledger.agrees,
        "complaints": ledger.complaints()[:20],
        "asked": {
            "interval_s": options.interval_s,
            "duration_s": options.duration_s,
            "warm_up_s": options.warm_up_s,
            "fixes_per_message": options.fixes_per_message,
            "brokers": options.brokers,
            "viewers": options.viewers,
            "assigned": options.assigned,
        },
        "lost_connections": sums["lost_connections"],
        "hot_updates": run.hot_shares(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def summarize(report: Mapping[str, Any]) -> list[str]:
    """The report in a few lines."""
    fixes, costs = report["fixes"], report["cpu_us_per_fix"]
    lines = [
        f"{report['devices']:,} devices, {report['rate_per_s']:,.0f} fixes/s "
        f"(due {report['rate_due_per_s']:,.0f}/s): " + ("held" if report["held"] else "NOT held"),
        f"fixes: {fixes['published']:,} published, {fixes['committed']:,} committed, "
        f"{fixes['quarantined']:,} in quarantine, {fixes['rejected']:,} rejected, "
        f"{fixes['lost']:,} lost; {fixes['resent']:,} sent again",
    ]
    for name, values in report["latency_ms"].items():
        shown = ", ".join(
            f"{kind} {'-' if ms is None else format(ms, '.4g')}" for kind, ms in values.items()
        )
        lines.append(f"{name.replace('_', ' ')}, ms: {shown}")
    parts = ", ".join(f"{name} {costs[name]:.1f}" for name in PARTS)
    lines.append(f"CPU per fix, µs: {costs['total']:.1f} ({parts})")
    size = report["bytes_per_fix"]
    lines.append(f"bytes per fix: {size['wire']:.0f} on the wire, {size['history']:.0f} kept")
    if "bare" in report:
        bare = report["bare"]
        lines.append(
            f"a bare chain: {bare['cpu_us_per_fix']['total']:.1f} µs; ours is "
            f"{bare['ratio']:.2f} times that"
        )
    lines += [f"full: {one}" for one in report["full"]]
    lines += report["complaints"]
    return lines
