"""CPU time of ingesting a fix, compared with one PATCH and with one INSERT per fix.

    python -m bench.ingest [--fixes 40000] [--drivers 200] [--patch-fixes 2000] [--runs 3]

Starts the whole native stack on free ports in a temporary folder, and measures the CPU time (user
and system) of each part, from its process, per fix:

  pipeline  phones -> Mosquitto -> bridge -> Kafka -> driver_events -> COPY, one call, one commit
  patch     Kafka -> driver_events with FIX_SINK=driver_api -> one PATCH per fix -> driver_api
  naive     a simple implementation (bench/naive.py): a PATCH per fix into a table with row
            triggers, 16 at a time (API and PostgreSQL); an INSERT per fix (client and PostgreSQL)

Each run verifies that every fix is committed. The load generator is not counted, but shares the
cores: compare figures of one run only. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from confluent_kafka import Producer

from bench import naive
from bench.devices import Phone, connect_phones, make_fix, publish
from bench.measure import Measurements, progress, spread
from bench.process_cpu import cpu_s, own_cpu_s
from bench.running_stack import running_stack
from doorstep.credentials import mqtt_password, read_fleet_key
from doorstep.fix import encode_fix
from doorstep.kafka.access_control import ADMIN
from doorstep.kafka.topic_specs import Topic, create_topics
from doorstep.store import fix_writer
from doorstep.store.pool import connect
from ops.servers.waiting import wait_until
from ops.stack.settings import PROJECT
from ops.stack.stack import Stack

PARTS = ("mosquitto-1", "bridge", "kafka", "driver_events", "postgres")
PATCH_TOPIC = "bench-patch"
RUN_TIMEOUT_S = 180.0  # of one run; the whole bench ends within runs x 2 x this

Cpu = dict[str, float]


def main() -> int:
    """Run the bench and print its result."""
    parser = argparse.ArgumentParser(
        prog="bench.ingest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--fixes", type=int, default=40_000, help="through the pipeline, per run")
    parser.add_argument("--drivers", type=int, default=200)
    parser.add_argument("--patch-fixes", type=int, default=2_000, help="by PATCH, per run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pipeline-only", action="store_true")
    parser.add_argument("--ha", action="store_true", help="only the pipeline, with replicas")
    options = parser.parse_args()
    with running_stack(echo=progress, has_replicas=options.ha) as stack:
        result = _measure(stack, options)
    sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    return 0


def _measure(stack: Stack, options: argparse.Namespace) -> dict[str, object]:
    drivers = [f"bench-{n:05}" for n in range(options.drivers)]
    stack.add_drivers(drivers)
    key = read_fleet_key(stack.paths.fleet_key_file)
    passwords = {driver_id: mqtt_password(key, driver_id) for driver_id in drivers}
    phones = connect_phones(stack.addresses.mqtt[0], passwords)
    each = max(1, options.fixes // len(drivers))
    parts = (*PARTS, "etcd") if options.ha else PARTS
    pipeline = CpuSamples("pipeline", parts)
    for run in range(options.runs + 1):  # the first one is a warm-up
        cpu, seconds = _run_pipeline(stack, phones, drivers, each, f"pipe{run}")
        if run:
            pipeline.add(cpu, seconds, each * len(drivers))
    if options.ha or options.pipeline_only:
        return {"drivers": len(drivers), "pipeline": pipeline.summary(each * len(drivers))}
    create_topics(stack.kafka_access(ADMIN), topics=[Topic(PATCH_TOPIC, 12, 60 * 60 * 1000)])
    patch = CpuSamples("patch", ("driver_events", "driver_api", "postgres"))
    with _patch_sink(stack) as pid:
        for run in range(options.runs + 1):
            count = options.patch_fixes if run else 200
            cpu, seconds = _run_patch(stack, drivers, count, f"patch{run}", pid)
            if run:
                patch.add(cpu, seconds, count)
    naive_patch = CpuSamples("naive patch", ("api", "postgres"))
    naive_insert = CpuSamples("naive insert", ("client", "postgres"))
    _run_naive(stack, drivers, options, naive_patch, naive_insert)
    measurements = Measurements("ingest", "µs of CPU per fix", [])
    measurements.set_runs("batches", pipeline.all_us)
    measurements.set_runs("one PATCH per fix, row triggers", naive_patch.all_us)
    measurements.set_runs("one INSERT per fix", naive_insert.all_us)
    measurements.set_runs("one PATCH per fix, FIX_SINK=driver_api", patch.all_us)
    return measurements.result() | {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "drivers": len(drivers),
        "pipeline": pipeline.summary(each * len(drivers)),
        "patch": patch.summary(options.patch_fixes),
        "naive_patch": naive_patch.summary(options.patch_fixes),
        "naive_insert": naive_insert.summary(options.patch_fixes),
    }


class CpuSamples:
    """The CPU time and rate of the runs of one variant."""

    def __init__(self, name: str, parts: Sequence[str]) -> None:
        self._name = name
        self._parts = parts
        self._us: dict[str, list[float]] = {part: [] for part in (*parts, "all")}
        self._rates: list[float] = []

    def add(self, cpu: Cpu, seconds: float, fixes: int) -> None:
        """Add one run."""
        for part in self._parts:
            self._us[part].append(cpu[part] / fixes * 1e6)
        self._us["all"].append(sum(cpu[part] for part in self._parts) / fixes * 1e6)
        self._rates.append(fixes / seconds)
        costs = ", ".join(f"{part} {us[-1]:.1f}" for part, us in self._us.items())
        progress(f"{self._name}: {fixes / seconds:,.0f} fixes/s; µs of CPU per fix: {costs}")

    @property
    def all_us(self) -> list[float]:
        """The total CPU time per fix of each run."""
        return self._us["all"]

    def summary(self, fixes: int) -> dict[str, object]:
        """Minimum, median and maximum of each figure."""
        return {
            "fixes": fixes,
            "fixes_per_s": spread(self._rates),
            "cpu_us_per_fix": {part: spread(us) for part, us in self._us.items()},
        }


def _run_pipeline(
    stack: Stack, phones: Sequence[Phone], drivers: Sequence[str], each: int, boot: str
) -> tuple[Cpu, float]:
    pids = {part: _pids(stack, part) for part in PARTS}
    if stack.addresses.has_replicas:
        pids["etcd"] = _pids(stack, "etcd")
    before = {part: sum(map(cpu_s, found)) for part, found in pids.items()}
    started_s = time.monotonic()
    publish(phones, each, boot)
    _await_committed(stack, drivers, dict.fromkeys(drivers, each), boot)
    seconds = time.monotonic() - started_s
    return {part: sum(map(cpu_s, found)) - before[part] for part, found in pids.items()}, seconds


def _pids(stack: Stack, part: str) -> list[int]:
    """Return the processes of a part: with replicas several."""
    process = "patroni" if part == "postgres" else part
    nodes = [one for one in stack.supervisor.running() if one.rpartition("-")[0] == process]
    if not nodes or not stack.addresses.has_replicas:
        return [stack.pid_of(part)]
    servers = stack.database_nodes() if part == "postgres" else []  # Patroni is not their parent
    postmasters = [pid for one in servers if (pid := one.pid()) is not None]
    return [*map(stack.pid_of, nodes), *postmasters]


def _run_patch(
    stack: Stack, drivers: Sequence[str], count: int, boot: str, sink_pid: int
) -> tuple[Cpu, float]:
    pids = {
        "driver_events": sink_pid,
        "driver_api": stack.pid_of("driver_api"),
        "postgres": stack.pid_of("postgres"),
    }
    expected = dict.fromkeys(drivers, 0)
    producer = Producer({**stack.kafka_access(ADMIN).as_librdkafka_dict(), "linger.ms": 5})
    before = {part: cpu_s(pid) for part, pid in pids.items()}
    started_s = time.monotonic()
    for n in range(count):
        driver_id = drivers[n % len(drivers)]
        expected[driver_id] += 1
        producer.produce(PATCH_TOPIC, encode_fix(make_fix(boot, expected[driver_id])), driver_id)
        producer.poll(0)
    producer.flush(30)
    _await_committed(stack, drivers, expected, boot)
    seconds = time.monotonic() - started_s
    return {part: cpu_s(pid) - before[part] for part, pid in pids.items()}, seconds


def _run_naive(
    stack: Stack,
    drivers: Sequence[str],
    options: argparse.Namespace,
    patched: CpuSamples,
    inserted: CpuSamples,
) -> None:
    url, postgres = stack.database_admin_url, stack.pid_of("postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    naive.prepare(url, drivers)
    with naive.running_api(url, port) as api:
        for run in range(options.runs + 1):
            count = options.patch_fixes if run else 200
            for sample, send, part, pid in (
                (patched, partial(naive.patch, port), "api", api),
                (inserted, partial(naive.insert, url), "client", os.getpid()),
            ):
                pids = {part: pid, "postgres": postgres}
                already_written = naive.written(url)
                before = {name: own_cpu_s(one) for name, one in pids.items()}
                started_s = time.monotonic()
                send(drivers, count)
                seconds = time.monotonic() - started_s
                cpu = {name: own_cpu_s(one) - before[name] for name, one in pids.items()}
                if naive.written(url) - already_written != count:
                    raise RuntimeError(f"{part}: not every fix was written")
                if run:
                    sample.add(cpu, seconds, count)


def _await_committed(
    stack: Stack, drivers: Sequence[str], expected: dict[str, int], boot: str
) -> None:
    """Wait until the watermarks in the database cover every fix."""
    expected = {driver_id: count for driver_id, count in expected.items() if count}
    pairs = [(driver_id, boot) for driver_id in drivers if driver_id in expected]

    def is_committed() -> bool:
        marks = fix_writer.read_watermarks(conn, pairs)
        conn.commit()
        done = {mark.driver_id: mark.seq for mark in marks if not mark.missing}
        return done == expected

    with connect(stack.database_admin_url, application_name="bench") as conn:
        # a poll costs the database about 3 ms
        wait_until(is_committed, RUN_TIMEOUT_S, "all fixes are committed", poll_s=0.5)


@contextmanager
def _patch_sink(stack: Stack) -> Iterator[int]:
    """Run a second driver_events with FIX_SINK=driver_api, on its own topic."""
    environment = _environment_of(stack.pid_of("driver_events")) | {
        "FIX_SINK": "driver_api",
        "KAFKA_TOPIC": PATCH_TOPIC,
        "DRIVER_API_URL": f"http://{stack.addresses.driver_api}",
        "DRIVER_API_TOKEN": stack.paths.driver_api_token(),
        "DRIVER_EVENTS_BIND": "127.0.0.1:0",
        "MQTT_URL": "mqtt://127.0.0.1:1",  # none: it would take over the first one's session
        "ACK_EVERY_S": "3600",
    }
    with (stack.paths.logs / "patch-sink.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "driver_events"], cwd=PROJECT, env=environment, stderr=log
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _environment_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    pairs = [entry.decode().partition("=") for entry in entries if entry]
    return {name: value for name, _, value in pairs}


if __name__ == "__main__":
    sys.exit(main())
