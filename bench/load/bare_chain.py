"""The same devices and servers with a bare chain in the middle, measured in the same run."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.load.fixtures import Say
from bench.load.report import PARTS
from bench.load.resource_usage import read_used
from bench.load.run import SETTLE_WITHIN_S, LoadFailed, LoadRun
from bench.load.worker_pool import Child
from doorstep.credentials import mqtt_password
from doorstep.kafka.topic_specs import DAY_MS, Topic, create_topics
from doorstep.store.error_mapping import translated
from ops.stack.addresses import reach
from ops.stack.processes import SERVICES
from sql import read_sql

TOPIC = "bare-pos"
READY_WITHIN_S = 60.0
POLL_S = 0.5
SHARES = ("p50", "p95", "p99", "max")  # in the order of sql/load/bare.sql


def measure_bare(run: LoadRun, interval_s: float, say: Say) -> dict[str, Any]:
    """Stop the services, let the bare chain take their place, and measure it.

    The stack's own services stay stopped. Raises LoadFailed, ChildFailed.
    """
    stack = run.stack
    say("a bare chain takes the place of the services")
    run.crew.end_viewers()
    for service in reversed(SERVICES):
        stack.stop_process(service)
    kafka = str(reach(stack.addresses.kafka))
    create_topics(kafka, topics=[Topic(TOPIC, 12, DAY_MS)])
    plan = {
        "brokers": [[reach(one).host, reach(one).port] for one in stack.addresses.mqtt],
        "password": mqtt_password(stack.paths.fleet_key(), "bridge"),
        "kafka": kafka,
        "topic": TOPIC,
        "database_url": stack.database_admin_url,
    }
    folder = Path(stack.paths.root)
    sink = Child("bench.bare.sink", plan, folder, "bare-sink")
    bridge = Child("bench.bare.bridge", plan, folder, "bare-bridge")
    try:
        _await_ready(sink, bridge)
        return _measure(run, interval_s, sink, bridge, say)
    finally:
        bridge.end()
        sink.end()


def _await_ready(sink: Child, bridge: Child) -> None:
    deadline_s = time.time() + READY_WITHIN_S
    while not (sink.latest.get("ready") and bridge.latest):
        sink.check()
        bridge.check()
        if time.time() > deadline_s:
            raise LoadFailed(f"the bare chain was not ready after {READY_WITHIN_S:.0f} s")
        time.sleep(POLL_S)


def _measure(
    run: LoadRun, interval_s: float, sink: Child, bridge: Child, say: Say
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
    published_before = run.crew.sums()["published"]
    run.flow(began_s, since_s, until_s, interval_s)
    _watch(run, sink, since_s, say)
    before = read_used(pids)
    _watch(run, sink, until_s, say)
    after = read_used(pids)
    settled_s = time.time() + SETTLE_WITHIN_S
    run.take_ledgers()
    published = run.crew.sums()["published"] - published_before
    while sink.latest["committed"] < published and time.time() < settled_s:
        _watch(run, sink, time.time() + 1, say)
        published = run.crew.sums()["published"] - published_before
    asked: dict[str, Any] = {
        name: datetime.fromtimestamp(at_s, UTC)
        for name, at_s in (("began", began_s), ("since", since_s), ("until", until_s))
    }
    asked["per_message"] = options.fixes_per_message
    with translated():
        row = run.conn.execute(read_sql("load/bare.sql"), asked).fetchone()
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


def _watch(run: LoadRun, sink: Child, until_s: float, say: Say) -> None:
    before = (run.crew.sums()["published"], sink.latest["committed"])
    while (rest_s := until_s - time.time()) > 0:
        time.sleep(min(1.0, rest_s))
        sink.check()
        for child in run.crew.generators:
            child.take()
        now = (run.crew.sums()["published"], sink.latest["committed"])
        say(f"bare: {now[0] - before[0]:,} published, {now[1] - before[1]:,} committed")
        before = now
