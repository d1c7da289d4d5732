"""One run: the stack, the stage, the crew, and measurements one after another."""

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
from bench.load.fixtures import LoadFleet, LoadStack, Say, set_the_stage
from bench.load.histogram import Histogram
from bench.load.options import LoadOptions
from bench.load.resource_usage import (
    ResourceUsage,
    children_of,
    cores_used,
    read_rss_mib,
    read_used,
)
from bench.load.sampler import Sample, Sampler
from bench.load.worker_pool import WorkerPool
from doorstep.errors import DoorstepError
from ops.ledger import Ledger
from ops.stack.addresses import reach
from ops.stack.stack import Stack

CONNECT_WITHIN_S = 600.0
SETTLE_WITHIN_S = 180.0
STUCK_S = 20.0  # nothing more is committed: the devices send again what is missing
RESENDS = 3
SOURCES = [f"127.0.0.{number}" for number in range(2, 10)]
SETTLE_LOOK_S = 0.5
VIEWERS_LAG_S = 1.5  # what is committed is on its way to them


class LoadFailed(DoorstepError):
    """The run could not be done."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One window: what was asked for, and what was seen."""

    interval_s: float
    since_s: float
    until_s: float
    moments: Sequence[Sample]  # of the window
    all_moments: Sequence[Sample]
    used: tuple[ResourceUsage, ResourceUsage]
    rss_mib: dict[str, float]
    history_bytes: tuple[int, int]  # before the run and after it had settled
    published_before: int  # fixes of this run, when the history's size was first read
    published_after: int
    published_in_window: int
    wire_bytes: int  # in the window, both ways
    rate_due_per_s: float
    cores_used: dict[str, float]  # by process
    puback: Histogram
    viewer: Histogram
    lateness: db_checks.Lateness
    missing: int  # fixes, when it had settled
    settled_after_s: float
    resent: int

    @property
    def duration_s(self) -> float:
        """How long the window was."""
        return self.until_s - self.since_s

    @property
    def committed_in_window(self) -> int:
        """Fixes committed while the CPU time was counted."""
        counts = self.lateness.committed_by_second
        return sum(counts[second] for second in range(int(self.since_s), int(self.until_s)))


class LoadRun:
    """A stack with its devices connected. `measure()` lets them publish, as often as one likes."""

    def __init__(
        self,
        options: LoadOptions,
        stack: Stack,
        fleet: LoadFleet,
        crew: WorkerPool,
        conn: Any,
        say: Say,
    ) -> None:
        self.options = options
        self.stack = stack
        self.fleet = fleet
        self.crew = crew
        self.conn = conn
        self._say = say
        self._place = {one.driver_id: place for place, one in enumerate(fleet.devices)}
        self.last_seqs = [0] * len(fleet.devices)
        self.pubacks = 0
        self.pids = self._find_pids()

    def _find_pids(self) -> dict[str, list[int]]:
        running = self.stack.supervisor.running()
        pids: dict[str, list[int]] = {
            "generator": [child.pid for child in self.crew.generators],
            "mosquitto": [],
            **{part: [] for part in ("bridge", "kafka", "driver_events", "postgres")},
            **{part: [] for part in ("tracking_api", "driver_api")},
            "viewers": [child.pid for child in self.crew.viewers],
        }
        for name, one in running.items():
            part = name.rpartition("-")[0] if name.startswith("mosquitto-") else name
            if part in pids and one.pid:
                pids[part].append(one.pid)
        return pids

    # -- one measurement ----------------------------------------------------------------------

    def measure(self, interval_s: float, duration_s: int, warm_up_s: int) -> Measurement:
        """Let the devices publish for a while, wait until all is committed, and look at it."""
        watch = Sampler(self.crew, self.stack.addresses, self.options.fixes_per_message, self._say)
        watch.begin()
        size_before = db_checks.read_history_bytes(self.conn)
        published_before = sum(self.last_seqs)
        began_s = int(time.time()) + 2
        since_s, until_s = began_s + warm_up_s, began_s + warm_up_s + duration_s
        self.flow(began_s, since_s, until_s, interval_s)
        watch.until(since_s)
        used_before, wire_before = read_used(self.pids), self._on_the_wire()
        each_before = read_used(self._processes())
        seen = len(watch.moments)
        watch.until(until_s)
        used_after, wire_after = read_used(self.pids), self._on_the_wire()
        each_after = read_used(self._processes())
        rss_mib = read_rss_mib(self.pids)
        in_window = watch.moments[seen:]
        settled = self._settle(watch)
        if self.crew.viewers:
            watch.until(time.time() + VIEWERS_LAG_S)
        lateness = db_checks.read_lateness(
            self.conn, since_s, until_s, self.options.fixes_per_message
        )
        lateness.committed_by_second.update(db_checks.read_commits(self.conn, began_s, until_s))
        return Measurement(
            interval_s=interval_s,
            since_s=since_s,
            until_s=until_s,
            moments=in_window,
            all_moments=watch.moments,
            used=(used_before, used_after),
            rss_mib=rss_mib,
            history_bytes=(size_before, db_checks.read_history_bytes(self.conn)),
            published_before=published_before,
            published_after=sum(self.last_seqs),
            published_in_window=wire_after[0] - wire_before[0],
            wire_bytes=wire_after[1] - wire_before[1],
            rate_due_per_s=self.options.devices / interval_s,
            cores_used=cores_used(each_before, each_after),
            puback=self._puback,
            viewer=self._viewer_latency(),
            lateness=lateness,
            missing=settled[0],
            settled_after_s=settled[1],
            resent=self.crew.sums()["resent"],
        )

    def flow(self, began_s: float, since_s: float, until_s: float, interval_s: float) -> None:
        """Let the devices publish from one instant to another; `since_s` begins the window."""
        self.crew.tell_all(
            {
                "do": "flow",
                "from_ms": began_s * 1000,
                "until_ms": until_s * 1000,
                "interval_ms": interval_s * 1000,
                "window_ms": [since_s * 1000, until_s * 1000],
            }
        )

    def _on_the_wire(self) -> tuple[int, int]:
        """Fixes published, and bytes sent and received for them, so far."""
        sums = self.crew.sums()
        return sums["published"], sums["bytes_out"] + sums["bytes_in"]

    def _processes(self) -> dict[str, list[int]]:
        """Each process by itself, and each of PostgreSQL's."""
        found = {
            f"{part} {number}" if len(pids) > 1 else part: [pid]
            for part, pids in self.pids.items()
            for number, pid in enumerate(pids, start=1)
        }
        postmaster = found.pop("postgres", [])
        for pid in [one for parent in postmaster for one in children_of(parent)]:
            found[f"PostgreSQL's {pid}"] = [pid]
        return found

    def hot_shares(self) -> dict[str, float | None]:
        """Which share of rewritten rows stayed on their page."""
        return db_checks.read_hot_shares(self.conn)

    def _viewer_latency(self) -> Histogram:
        found = Histogram()
        for child in self.crew.viewers:
            child.tell({"do": "answer"})
            found.merge((bucket, count) for bucket, count in child.answer()["answer"])
        return found

    # -- settling -----------------------------------------------------------------------------

    def _settle(self, watch: Sampler) -> tuple[int, float]:
        """Wait until the database has all; the devices send again what it lacks for long.

        A real device would be told by the watermark, and send again after three silent periods of
        30 s; here the conductor tells it what the watermark lacks. (missing fixes, seconds).
        """
        began_s = progress_s = time.time()
        while watch.moments[-1].late_ms > 1000 and time.time() < began_s + SETTLE_WITHIN_S:
            watch.until(time.time() + 1)  # a late generator makes up for it
        self.take_ledgers()
        least: int | None = None
        resends = 0
        while True:
            gaps = db_checks.read_missing(self.conn, self.fleet.devices, self.last_seqs)
            missing = sum(last - first + 1 for _place, first, last in gaps)
            now_s = time.time()
            if not missing:
                break
            if least is None or missing < least:
                least, progress_s = missing, now_s
            if now_s - progress_s > STUCK_S:
                if resends == RESENDS:
                    break
                resends += 1
                progress_s = now_s
                self._say(f"{missing:,} fixes are missing: their devices send them again")
                self._resend(gaps)
            if now_s - began_s > SETTLE_WITHIN_S:
                break
            watch.until(now_s + SETTLE_LOOK_S)
        self.take_ledgers()
        return missing, round(time.time() - began_s, 1)

    def take_ledgers(self) -> None:
        """Ask the devices what they have published."""
        per_message = self.options.fixes_per_message
        self._puback = Histogram()
        self.pubacks = 0
        for number, made, pubacks, latencies in self.crew.ledgers():
            for device, messages in zip(self.fleet.shards[number], made, strict=True):
                self.last_seqs[self._place[device.driver_id]] = messages * per_message
            self.pubacks += pubacks * per_message
            self._puback.merge(latencies)

    def _resend(self, gaps: Sequence[db_checks.Gap]) -> None:
        per_message = self.options.fixes_per_message
        wanted = {
            self.fleet.devices[place].driver_id: {
                (seq - 1) // per_message + 1 for seq in range(first, last + 1)
            }
            for place, first, last in gaps
        }
        for child, shard in zip(self.crew.generators, self.fleet.shards, strict=True):
            messages = [
                [number_in_shard, message]
                for number_in_shard, one in enumerate(shard)
                for message in sorted(wanted.get(one.driver_id, ()))
            ]
            if messages:
                child.tell({"do": "resend", "messages": messages})

    def balance(self) -> Ledger:
        """Compare every device's seqs with the database's history, row by row."""
        return db_checks.balance_books(self.conn, self.fleet.devices, self.last_seqs)


@contextlib.contextmanager
def load_run(options: LoadOptions, say: Say) -> Iterator[LoadRun]:
    """Start a stack and connect its devices; at the end stop all and erase it."""
    folder = Path(tempfile.mkdtemp(prefix="doorstep-load-"))
    folder.chmod(0o755)  # the servers' own users must reach it
    stack = LoadStack(folder, options.brokers, say)
    try:
        say(f"starting a stack with {options.brokers} broker{'s' * (options.brokers > 1)}")
        stack.up(owner_pid=os.getpid())
        fleet = set_the_stage(stack, options, say)
        with WorkerPool(folder) as crew, db_checks.open_books(stack.database_admin_url) as conn:
            _connect(crew, stack, fleet, options, folder, say)
            yield LoadRun(options, stack, fleet, crew, conn, say)
    finally:
        say("stopping")
        try:
            stack.down(erase=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _connect(
    crew: WorkerPool, stack: Stack, fleet: LoadFleet, options: LoadOptions, folder: Path, say: Say
) -> None:
    plans = []
    for shard, broker in zip(fleet.shards, stack.addresses.mqtt, strict=True):
        at = reach(broker)
        plans.append(
            {
                "host": at.host,
                "port": at.port,
                "sources": SOURCES,
                "fleet_key_file": str(stack.paths.fleet_key_file),
                "folder": str(folder),
                "fixes_per_message": options.fixes_per_message,
                "devices": [one.as_json() for one in shard],
            }
        )
    began_s = time.time()
    crew.start_generators(plans)
    _await(crew, lambda: crew.sums()["connected"], options.devices, "connected", say)
    say(f"connected {options.devices:,} devices in {time.time() - began_s:.1f} s")
    if options.viewers:
        at = reach(stack.addresses.tracking_api)
        orders = fleet.orders
        viewers = [orders[number % len(orders)] for number in range(options.viewers)]
        crew.start_viewers(
            {
                "host": at.host,
                "port": at.port,
                "viewers": [[one.order_id, one.token] for one in viewers],
            }
        )
        watching = crew.viewers[0]
        _await(crew, lambda: watching.latest.get("watching", 0), options.viewers, "watching", say)


def _await(crew: WorkerPool, count: Callable[[], int], wanted: int, what: str, say: Say) -> None:
    """Wait until all are there, saying how many are. Raises LoadFailed, ChildFailed."""
    deadline_s = time.time() + CONNECT_WITHIN_S
    said_at_s = time.time()
    while (found := count()) < wanted:
        for child in [*crew.generators, *crew.viewers]:
            child.check()
        if time.time() > deadline_s:
            raise LoadFailed(f"{found:,} of {wanted:,} {what} after {CONNECT_WITHIN_S:.0f} s")
        if time.time() - said_at_s >= 1:
            said_at_s = time.time()
            say(f"{what} {found:,} of {wanted:,}")
        time.sleep(0.1)
