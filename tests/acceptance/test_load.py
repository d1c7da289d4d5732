"""`./run load` end to end: a small run on a temporary stack, and a fix deleted afterwards."""

from __future__ import annotations

from bench.load.options import parse
from bench.load.report import PARTS, build_report
from bench.load.run import load_run

ARGUMENTS = ["--devices", "200", "--brokers", "2", "--interval", "1", "--duration", "5"]
SHAPE = {
    "fixes": {"published", "committed", "quarantined", "rejected", "lost"},
    "latency_ms": {"publish_to_puback", "publish_to_commit", "publish_to_viewer"},
    "cpu_us_per_fix": {*PARTS, "total"},
    "rss_mib": set(PARTS),
    "rss_unshared_mib": set(PARTS),
    "bytes_per_fix": {"wire", "history"},
}


def test_load__a_small_run__reconciles_every_fix_and_finds_a_deleted_one() -> None:
    options = parse([*ARGUMENTS, "--viewers", "5"])
    with load_run(options, lambda _line: None) as run:
        measured = run.measure(options.interval_s, options.duration_s, options.warm_up_s)
        report = build_report(run, measured, run.reconcile())

        # The report is complete, and nothing is lost.
        assert {"devices", "rate_per_s", "machine", *SHAPE} <= set(report)
        for name, members in SHAPE.items():
            assert members <= set(report[name])
        for latency in report["latency_ms"].values():
            assert latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
        fixes = report["fixes"]
        assert fixes["published"] == 200 * (options.warm_up_s + options.duration_s)
        assert fixes["committed"] + fixes["rejected"] == fixes["published"]
        assert (fixes["lost"], fixes["consistent"], report["discrepancies"]) == (0, True, [])
        assert fixes["pubacked"] == fixes["published"]
        assert report["messages"] == {"published": fixes["published"], "saved_percent": 0}
        assert report["cpu_us_per_fix"]["total"] > 0
        assert all(report["rss_mib"][part] > 0 for part in PARTS)
        assert 150 < report["bytes_per_fix"]["wire"] < 400
        assert report["disconnects"] == 0

        # A deleted fix is reported.
        one = run.fleet.devices[77]
        run.conn.execute(
            "DELETE FROM fix_history WHERE driver_id = %s AND seq = 3", (one.driver_id,)
        )
        (lost, inconsistent) = run.reconcile().complaints()
        assert run.reconcile().lost == 1
        assert lost.startswith(f"{one.driver_id} boot {one.boot}: lost 3-3")
        assert "differ" in inconsistent
