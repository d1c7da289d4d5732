"""The report of a run as JSON values, and its summary as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bench.load.options import LoadOptions
from bench.load.resource_usage import describe_machine
from bench.load.run import LoadRun, Measurement
from bench.load.sampler import find_saturated
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
SUSTAINED_P99_MS = 1000.0
SUSTAINED_SHARE = 0.99  # of the fixes due in the window were committed in it


def cpu_us_per_fix(measured: Measurement) -> dict[str, float]:
    """CPU time per committed fix, user and system, by part.

    `total` is the sum over PARTS; the viewers and driver_api are reported separately.
    """
    before, after = measured.usage
    fixes = max(1, measured.committed_in_window)
    each = {part: (after.cpu_s[part] - before.cpu_s[part]) / fixes * 1e6 for part in after.cpu_s}
    costs = {part: round(each.get(part, 0.0), 2) for part in PARTS}
    costs["total"] = round(sum(each.get(part, 0.0) for part in PARTS), 2)
    costs |= {part: round(cost, 2) for part, cost in each.items() if part not in PARTS}
    busy_s = after.machine_busy_s - before.machine_busy_s
    costs["machine"] = round(busy_s / fixes * 1e6, 2)  # other processes included
    return costs


def is_sustained(measured: Measurement) -> bool:
    """Whether the rate was sustained: nothing missing, on time, no growing backlog.

    In a mixed run the watched drivers' fixes have to be on time.
    """
    latency = measured.watched_latency or measured.commit_latency.latency
    p99_ms, due = latency.percentile(0.99), latency.total
    return (
        measured.missing == 0
        and due > 0
        and p99_ms is not None
        and p99_ms <= SUSTAINED_P99_MS
        and measured.committed_in_window >= SUSTAINED_SHARE * _due_in_window(measured)
    )


def _due_in_window(measured: Measurement) -> float:
    return measured.rate_due_per_s * measured.duration_s


def saturated_parts(measured: Measurement, processes: Mapping[str, float]) -> list[str]:
    """The saturated parts, as text."""
    before, after = measured.usage
    busy_s = after.machine_busy_s - before.machine_busy_s
    all_s = after.machine_all_s - before.machine_all_s
    return find_saturated(
        measured.samples, measured.rate_due_per_s, processes, busy_s / max(1.0, all_s)
    )


def measurement_report(measured: Measurement) -> dict[str, Any]:
    """The report of one window."""
    before, after = measured.usage
    busy_s = after.machine_busy_s - before.machine_busy_s
    all_s = after.machine_all_s - before.machine_all_s
    fixes = max(1, measured.published_after - measured.published_before)
    grown = measured.history_bytes[1] - measured.history_bytes[0]
    return {
        "rate_per_s": round(measured.committed_in_window / measured.duration_s, 1),
        "rate_due_per_s": round(measured.rate_due_per_s, 1),
        "sustained": is_sustained(measured),
        "saturated": saturated_parts(measured, measured.cores_used),
        "latency_ms": {
            "publish_to_puback": measured.puback.summary(),
            "publish_to_commit": measured.commit_latency.latency.summary(),
            **(
                {"publish_to_commit_watched": measured.watched_latency.summary()}
                if measured.watched_latency
                else {}
            ),
            "publish_to_viewer": measured.viewer.summary(),
        },
        "cpu_us_per_fix": cpu_us_per_fix(measured),
        "machine_busy": round(busy_s / max(1.0, all_s), 3),
        "rss_mib": measured.memory.all_mib,
        "rss_unshared_mib": measured.memory.unshared_mib,
        "bytes_per_fix": {
            "wire": round(measured.wire_bytes / max(1, measured.published_in_window), 1),
            "history": round(grown / fixes, 1),
        },
        "missing": measured.missing,
        "settled_after_s": measured.settled_after_s,
        "viewers": {"positions": measured.viewer.total},
    }


def build_report(run: LoadRun, measured: Measurement, ledger: Ledger) -> dict[str, Any]:
    """The complete report."""
    options: LoadOptions = run.options
    totals = run.workers.totals()
    window = measurement_report(measured)
    return {
        "devices": options.devices,
        "rate_per_s": window.pop("rate_per_s"),
        "fixes": {
            **ledger.fixes(),
            "pubacked": run.pubacks,
            "resent": totals["resent"],
            "consistent": ledger.agrees,
        },
        # Saved: compared with a message for each fix.
        "messages": {
            "published": run.messages,
            "saved_percent": round(100 * (1 - run.messages / max(1, ledger.published)), 1),
        },
        "orders": {"prepared": run.fleet.prepared, "prepared_s": run.fleet.prepared_s},
        "latency_ms": window.pop("latency_ms"),
        "cpu_us_per_fix": window.pop("cpu_us_per_fix"),
        "rss_mib": window.pop("rss_mib"),
        "bytes_per_fix": window.pop("bytes_per_fix"),
        "machine": describe_machine(),
        **window,
        "sustained": window["sustained"] and ledger.lost == 0 and ledger.agrees,
        "discrepancies": ledger.complaints()[:20],
        "options": {
            "interval_s": options.interval_s,
            "duration_s": options.duration_s,
            "warm_up_s": options.warm_up_s,
            "fixes_per_message": options.fixes_per_message,
            "mixed": options.mixed,
            "brokers": options.brokers,
            "tls": options.tls,
            "viewers": options.viewers,
            "assigned": options.assigned,
        },
        "disconnects": totals["disconnects"],
        "hot_updates": run.hot_shares(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """The summary of a report."""
    fixes, costs = report["fixes"], report["cpu_us_per_fix"]
    lines = [
        f"{report['devices']:,} devices, {report['rate_per_s']:,.0f} fixes/s "
        f"(due {report['rate_due_per_s']:,.0f}/s): "
        + ("sustained" if report["sustained"] else "NOT sustained"),
        f"fixes: {fixes['published']:,} published, {fixes['committed']:,} committed, "
        f"{fixes['quarantined']:,} quarantined, {fixes['rejected']:,} rejected, "
        f"{fixes['lost']:,} lost; {fixes['resent']:,} resent",
    ]
    for name, values in report["latency_ms"].items():
        shown = ", ".join(
            f"{kind} {'-' if ms is None else format(ms, '.4g')}" for kind, ms in values.items()
        )
        lines.append(f"{name.replace('_', ' ')}, ms: {shown}")
    parts = ", ".join(f"{name} {costs[name]:.1f}" for name in PARTS)
    lines.append(f"CPU per fix, µs: {costs['total']:.1f} ({parts})")
    size = report["bytes_per_fix"]
    lines.append(
        f"bytes per fix: {size['wire']:.0f} on the wire, {size['history']:.0f} in the history"
    )
    if "bare" in report:
        bare = report["bare"]
        lines.append(
            f"bare chain: {bare['cpu_us_per_fix']['total']:.1f} µs; "
            f"{bare['ratio']:.2f} times as much here"
        )
    lines += [f"saturated: {one}" for one in report["saturated"]]
    lines += report["discrepancies"]
    return lines
