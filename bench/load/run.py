"""One run: the stack, the fixtures, the workers, and one or more measurements."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load import db_checks
from bench.load.fixtures import (
    WATCHED_BOOT,
    LoadFleet,
    LoadStack,
    Progress,
    create_fixtures,
)
from bench.load.histogram import Histogram
from bench.load.options import LoadOptions
from bench.load.resource_usage import (
    Memory,
    ResourceUsage,
    children_of,
    cores_used,
    read_memory,
    read_usage,
)
from bench.load.sampler import Sample, Sampler
from bench.load.worker_pool import WorkerPool
from doorstep.errors import DoorstepError
from ops.ledger import Ledger
from ops.stack.addresses import reach
from ops.stack.certificates import CertificateAuthority
from ops.stack.stack import Stack

CONNECT_WITHIN_S = 600.0
SETTLE_WITHIN_S = 180.0
STUCK_S = 20.0  # without progress: the devices resend what is missing
RESENDS = 3
SOURCES = [f"127.0.0.{number}" for number in range(2, 10)]
SETTLE_POLL_S = 0.5
VIEWERS_LAG_S = 1.5  # from commit to the viewers


class LoadFailed(DoorstepError):
    """The run could not be completed."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The results of one measurement window."""

    interval_s: float
    since_s: float
    until_s: float
    samples: Sequence[Sample]  # inside the window
    all_samples: Sequence[Sample]
    usage: tuple[ResourceUsage, ResourceUsage]
    memory: Memory
    history_bytes: tuple[int, int]  # before the run, and after settling
    published_before: int  # fixes of this run at the first reading of the history's size
    published_after: int
    published_in_window: int
    wire_bytes: int  # in the window, both directions
    rate_due_per_s: float
    cores_used: dict[str, float]  # by process
    puback: Histogram
    viewer: Histogram
    commit_latency: db_checks.CommitLatency
    watched_latency: Histogram | None  # of drivers that send each fix alone, in a mixed run
    missing: int  # fixes, after settling
    settled_after_s: float
    resent: int

    @property
    def duration_s(self) -> float:
        """Length of the window."""
        return self.until_s - self.since_s

    @property
    def committed_in_window(self) -> int:
        """Fixes committed in the window."""
        counts = self.commit_latency.committed_by_second
        return sum(counts[second] for second in range(int(self.since_s), int(self.until_s)))


class LoadRun:
    """A stack with its devices connected. `measure()` may be called several times."""

    def __init__(
        self,
        options: LoadOptions,
        stack: Stack,
        fleet: LoadFleet,
        workers: WorkerPool,
        conn: Any,
        progress: Progress,
    ) -> None:
        self.options = options
        self.stack = stack
        self.fleet = fleet
        self.workers = workers
        self.conn = conn
        self._progress = progress
        self._index = {one.driver_id: index for index, one in enumerate(fleet.devices)}
        self.last_seqs = [0] * len(fleet.devices)
        self.messages = 0
        self.pubacks = 0
        self.pids = self._find_pids()

    def _find_pids(self) -> dict[str, list[int]]:
        running = self.stack.supervisor.running()
        pids: dict[str, list[int]] = {
            "generator": [worker.pid for worker in self.workers.generators],
            "mosquitto": [],
            **{part: [] for part in ("bridge", "kafka", "driver_events", "postgres")},
            **{part: [] for part in ("tracking_api", "driver_api")},
            "viewers": [worker.pid for worker in self.workers.viewers],
        }
        for name, one in running.items():
            part = name.rpartition("-")[0] if name.startswith("mosquitto-") else name
            if part in pids and one.pid:
                pids[part].append(one.pid)
        return pids

    # -- one measurement ----------------------------------------------------------------------

    def measure(self, interval_s: float, duration_s: int, warm_up_s: int) -> Measurement:
        """Publish for a while, wait until all fixes are committed, and collect the results."""
        sampler = Sampler(
            self.workers,
            self.stack.addresses,
            self.options.mean_fixes_per_message,
            self._progress,
        )
        sampler.start()
        size_before = db_checks.read_history_bytes(self.conn)
        published_before = sum(self.last_seqs)
        began_s = int(time.time()) + 2
        since_s, until_s = began_s + warm_up_s, began_s + warm_up_s + duration_s
        self.publish(began_s, since_s, until_s, interval_s)
        sampler.run_until(since_s)
        used_before, wire_before = read_usage(self.pids), self._wire_counts()
        each_before = read_usage(self._processes())
        seen = len(sampler.samples)
        sampler.run_until(until_s)
        used_after, wire_after = read_usage(self.pids), self._wire_counts()
        each_after = read_usage(self._processes())
        memory = read_memory(self.pids)
        in_window = sampler.samples[seen:]
        settled = self._settle(sampler)
        if self.workers.viewers:
            sampler.run_until(time.time() + VIEWERS_LAG_S)
        options = self.options
        commit_latency = db_checks.read_commit_latency(
            self.conn, since_s, until_s, boots="%", per_message=options.fixes_per_message
        )
        watched_latency = None
        if options.mixed:
            watched_latency = db_checks.read_commit_latency(
                self.conn, since_s, until_s, boots=f"{WATCHED_BOOT}%", per_message=1
            ).latency
        commit_latency.committed_by_second.update(
            db_checks.read_commits(self.conn, began_s, until_s)
        )
        return Measurement(
            interval_s=interval_s,
            since_s=since_s,
            until_s=until_s,
            samples=in_window,
            all_samples=sampler.samples,
            usage=(used_before, used_after),
            memory=memory,
            history_bytes=(size_before, db_checks.read_history_bytes(self.conn)),
            published_before=published_before,
            published_after=sum(self.last_seqs),
            published_in_window=wire_after[0] - wire_before[0],
            wire_bytes=wire_after[1] - wire_before[1],
            rate_due_per_s=self.options.devices / interval_s,
            cores_used=cores_used(each_before, each_after),
            puback=self._puback,
            viewer=self._viewer_latency(),
            commit_latency=commit_latency,
            watched_latency=watched_latency,
            missing=settled[0],
            settled_after_s=settled[1],
            resent=self.workers.totals()["resent"],
        )

    def publish(self, began_s: float, since_s: float, until_s: float, interval_s: float) -> None:
        """Publish from `began_s` to `until_s`; the window starts at `since_s`."""
        self.workers.broadcast(
            {
                "do": "publish",
                "from_ms": began_s * 1000,
                "until_ms": until_s * 1000,
                "interval_ms": interval_s * 1000,
                "window_ms": [since_s * 1000, until_s * 1000],
            }
        )

    def _wire_counts(self) -> tuple[int, int]:
        """Fixes published, and bytes sent and received, so far."""
        totals = self.workers.totals()
        return totals["published"], totals["bytes_out"] + totals["bytes_in"]

    def _processes(self) -> dict[str, list[int]]:
        """Pids by process, PostgreSQL's backends separately."""
        found = {
            f"{part} {number}" if len(pids) > 1 else part: [pid]
            for part, pids in self.pids.items()
            for number, pid in enumerate(pids, start=1)
        }
        postmaster = found.pop("postgres", [])
        for pid in [one for parent in postmaster for one in children_of(parent)]:
            found[f"postgres {pid}"] = [pid]
        return found

    def hot_shares(self) -> dict[str, float | None]:
        """Share of HOT updates, by table."""
        return db_checks.read_hot_shares(self.conn)

    def _viewer_latency(self) -> Histogram:
        found = Histogram()
        for worker in self.workers.viewers:
            worker.send({"do": "latency"})
            found.merge((bucket, count) for bucket, count in worker.receive()["latency"])
        return found

    # -- settling -----------------------------------------------------------------------------

    def _settle(self, sampler: Sampler) -> tuple[int, float]:
        """Wait until the database has all fixes: (missing fixes, seconds).

        Without progress for 20 s the devices resend what is missing. A real device does so by
        its watermark, after three silent periods of 30 s.
        """
        began_s = last_progress_s = time.time()
        while sampler.samples[-1].lag_ms > 1000 and time.time() < began_s + SETTLE_WITHIN_S:
            sampler.run_until(time.time() + 1)  # a generator behind its schedule catches up
        self.collect_ledgers()
        minimum: int | None = None
        resends = 0
        while True:
            missing_ranges = db_checks.read_missing(self.conn, self.fleet.devices, self.last_seqs)
            missing = sum(last - first + 1 for _index, first, last in missing_ranges)
            now_s = time.time()
            if not missing:
                break
            if minimum is None or missing < minimum:
                minimum, last_progress_s = missing, now_s
            if now_s - last_progress_s > STUCK_S:
                if resends == RESENDS:
                    break
                resends += 1
                last_progress_s = now_s
                self._progress(f"{missing:,} missing fixes: resending")
                self._resend(missing_ranges)
            if now_s - began_s > SETTLE_WITHIN_S:
                break
            sampler.run_until(now_s + SETTLE_POLL_S)
        self.collect_ledgers()
        return missing, round(time.time() - began_s, 1)

    def collect_ledgers(self) -> None:
        """Collect the published messages of each device, and their number."""
        self._puback = Histogram()
        self.messages = self.pubacks = 0
        for number, generated, pubacks, latencies in self.workers.collect_ledgers():
            shard = self.fleet.shards[number]
            per_message = shard.fixes_per_message
            for device, messages in zip(shard.devices, generated, strict=True):
                self.last_seqs[self._index[device.driver_id]] = messages * per_message
            self.messages += sum(generated)
            self.pubacks += pubacks * per_message
            self._puback.merge(latencies)

    def _resend(self, missing_ranges: Sequence[db_checks.MissingRange]) -> None:
        messages_of = {
            (one := self.fleet.devices[index]).driver_id: {
                (seq - 1) // one.fixes_per_message + 1 for seq in range(first, last + 1)
            }
            for index, first, last in missing_ranges
        }
        for worker, shard in zip(self.workers.generators, self.fleet.shards, strict=True):
            messages = [
                [number_in_shard, message]
                for number_in_shard, one in enumerate(shard.devices)
                for message in sorted(messages_of.get(one.driver_id, ()))
            ]
            if messages:
                worker.send({"do": "resend", "messages": messages})

    def reconcile(self) -> Ledger:
        """Compare every device's seqs with the history, row by row."""
        return db_checks.reconcile(self.conn, self.fleet.devices, self.last_seqs)


@contextlib.contextmanager
def load_run(options: LoadOptions, progress: Progress) -> Iterator[LoadRun]:
    """Start a stack and connect its devices; stop and erase it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="doorstep-load-"))
    folder.chmod(0o755)  # readable for the servers' users
    stack = LoadStack(folder, options.brokers, progress, tls=options.tls)
    try:
        progress(f"starting a stack with {options.brokers} broker{'s' * (options.brokers > 1)}")
        stack.up(owner_pid=os.getpid())
        fleet = create_fixtures(stack, options, progress)
        with (
            WorkerPool(folder) as workers,
            db_checks.connect_database(stack.database_admin_url) as conn,
        ):
            _connect(workers, stack, fleet, options, folder, progress)
            yield LoadRun(options, stack, fleet, workers, conn, progress)
    finally:
        progress("stopping")
        try:
            stack.down(erase=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _connect(
    workers: WorkerPool,
    stack: Stack,
    fleet: LoadFleet,
    options: LoadOptions,
    folder: Path,
    progress: Progress,
) -> None:
    plans = []
    brokers = stack.addresses.mqtt_tls if options.tls else stack.addresses.mqtt
    authority = CertificateAuthority(stack.paths.tls).certificate
    for shard in fleet.shards:
        at = reach(brokers[shard.broker])
        plans.append(
            {
                "host": at.host,
                "port": at.port,
                "authority_file": str(authority) if options.tls else None,
                "sources": SOURCES,
                "fleet_key_file": str(stack.paths.fleet_key_file),
                "folder": str(folder),
                "fixes_per_message": shard.fixes_per_message,
                "devices": [one.as_json() for one in shard.devices],
            }
        )
    began_s = time.time()
    workers.start_generators(plans)
    _await(workers, lambda: workers.totals()["connected"], options.devices, "connected", progress)
    progress(f"connected {options.devices:,} devices in {time.time() - began_s:.1f} s")
    if options.viewers:
        at = reach(stack.addresses.tracking_api)
        orders = fleet.orders
        viewers = [orders[number % len(orders)] for number in range(options.viewers)]
        workers.start_viewers(
            {
                "host": at.host,
                "port": at.port,
                "viewers": [[one.order_id, one.token] for one in viewers],
            }
        )
        watching = workers.viewers[0]
        _await(
            workers,
            lambda: watching.latest.get("watching", 0),
            options.viewers,
            "watching",
            progress,
        )


def _await(
    workers: WorkerPool, count: Callable[[], int], expected: int, what: str, progress: Progress
) -> None:
    """Wait for all devices or viewers, with progress. Raises LoadFailed, WorkerFailed."""
    deadline_s = time.time() + CONNECT_WITHIN_S
    reported_at_s = time.time()
    while (found := count()) < expected:
        for worker in [*workers.generators, *workers.viewers]:
            worker.check()
        if time.time() > deadline_s:
            raise LoadFailed(f"{found:,} of {expected:,} {what} after {CONNECT_WITHIN_S:.0f} s")
        if time.time() - reported_at_s >= 1:
            reported_at_s = time.time()
            progress(f"{what} {found:,} of {expected:,}")
        time.sleep(0.1)
