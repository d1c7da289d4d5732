"""Measure the same devices and servers with a minimal pipeline in place of the services."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.load.fixtures import WATCHED_BOOT, Progress
from bench.load.report import PARTS
from bench.load.resource_usage import read_usage
from bench.load.run import SETTLE_WITHIN_S, LoadFailed, LoadRun
from bench.load.worker_pool import Worker
from doorstep.kafka.access_control import ADMIN
from doorstep.kafka.topic_specs import DAY_MS, Topic, create_topics
from doorstep.store.error_mapping import translated
from ops.stack.addresses import reach
from ops.stack.processes import SERVICES
from sql import read_sql

TOPIC = "bare-pos"
READY_WITHIN_S = 60.0
POLL_S = 0.5
SHARES = ("p50", "p95", "p99", "max")  # in the order of sql/load/bare.sql


def measure_bare(run: LoadRun, interval_s: float, progress: Progress) -> dict[str, Any]:
    """Stop the services, start the bare chain in their place, and measure it.

    The services stay stopped. Raises LoadFailed, WorkerFailed.
    """
    stack = run.stack
    progress("replacing the services with the bare chain")
    run.workers.stop_viewers()
    for service in reversed(SERVICES):
        stack.stop_process(service)
    kafka = stack.kafka_access(ADMIN)
    create_topics(kafka, topics=[Topic(TOPIC, 12, DAY_MS)])
    plan = {
        "brokers": [[reach(one).host, reach(one).port] for one in stack.addresses.mqtt],
        "password": stack.paths.mqtt_password("bridge"),
        "kafka": kafka.as_librdkafka_dict(),
        "topic": TOPIC,
        "database_url": stack.database_admin_url,
    }
    folder = Path(stack.paths.root)
    sink = Worker("bench.bare.sink", plan, folder, "bare-sink")
    bridge = Worker("bench.bare.bridge", plan, folder, "bare-bridge")
    try:
        _await_ready(sink, bridge)
        return _measure(run, interval_s, sink, bridge, progress)
    finally:
        bridge.stop()
        sink.stop()


def _await_ready(sink: Worker, bridge: Worker) -> None:
    deadline_s = time.time() + READY_WITHIN_S
    while not (sink.latest.get("ready") and bridge.latest):
        sink.check()
        bridge.check()
        if time.time() > deadline_s:
            raise LoadFailed(f"the bare chain was not ready after {READY_WITHIN_S:.0f} s")
        time.sleep(POLL_S)


def _measure(
    run: LoadRun, interval_s: float, sink: Worker, bridge: Worker, progress: Progress
) -> dict[str, Any]:
    options = run.options
    pids = {
        **{part: run.pids[part] for part in ("generator", "mosquitto", "kafka", "postgres")},
        "bridge": [bridge.pid],
        "driver_events": [sink.pid],
    }
    began_s = int(time.time()) + 2
    since_s = began_s + options.warm_up_of(interval_s)
    until_s = since_s + options.duration_s
    published_before = run.workers.totals()["published"]
    run.publish(began_s, since_s, until_s, interval_s)
    _poll_until(run, sink, since_s, progress)
    before = read_usage(pids)
    _poll_until(run, sink, until_s, progress)
    after = read_usage(pids)
    settled_s = time.time() + SETTLE_WITHIN_S
    run.collect_ledgers()
    published = run.workers.totals()["published"] - published_before
    while sink.latest["committed"] < published and time.time() < settled_s:
        _poll_until(run, sink, time.time() + 1, progress)
        published = run.workers.totals()["published"] - published_before
    parameters: dict[str, Any] = {
        name: datetime.fromtimestamp(at_s, UTC)
        for name, at_s in (("began", began_s), ("since", since_s), ("until", until_s))
    }
    parameters["per_message"] = 1 if options.mixed else options.fixes_per_message
    parameters["boots"] = f"{WATCHED_BOOT}%" if options.mixed else "%"
    with translated():
        row = run.conn.execute(read_sql("load/bare.sql"), parameters).fetchone()
    stored, in_window, latency = row
    costs = {
        part: (after.cpu_s[part] - before.cpu_s[part]) / max(1, in_window) * 1e6 for part in pids
    }
    return {
        "rate_per_s": round(in_window / options.duration_s, 1),
        "fixes": {"published": published, "committed": stored},
        "latency_ms": {
            "publish_to_commit": dict(
                zip(
                    ("p50", "p95", "p99", "max"),
                    (round(float(ms), 1) for ms in latency),
                    strict=True,
                )
            )
        },
        "cpu_us_per_fix": {
            **{part: round(costs[part], 2) for part in PARTS if part in costs},
            "total": round(sum(costs.values()), 2),
        },
    }


def _poll_until(run: LoadRun, sink: Worker, until_s: float, progress: Progress) -> None:
    before = (run.workers.totals()["published"], sink.latest["committed"])
    while (remaining_s := until_s - time.time()) > 0:
        time.sleep(min(1.0, remaining_s))
        sink.check()
        for worker in run.workers.generators:
            worker.drain()
        now = (run.workers.totals()["published"], sink.latest["committed"])
        progress(f"bare: {now[0] - before[0]:,} published, {now[1] - before[1]:,} committed")
        before = now
