"""`./run demo`: couriers deliver orders in Florence, on a stack that this starts and stops.

start the stack ─ register the couriers ─ start them ─ show where to look
  └─ a line now and then: orders by state, fixes a second, how old positions are
stop the couriers when the watermark has passed their fixes ─ ledger ─ stop the stack
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from device.journal import read_published
from doorstep.errors import DoorstepError, Unavailable
from doorstep.provision import CITIES, numbered, owner_connection
from ops.ledger import (
    Boot,
    Ledger,
    compare,
    read_evidence,
    read_freshness_s,
    read_journals,
    read_latency_ms,
    read_orders,
)
from ops.stack.demo_links import DemoLinks
from ops.stack.paths import StackError, StackPaths, as_user, print_line
from ops.stack.processes import module_argv
from ops.stack.settings import PROJECT
from ops.stack.simulation_targets import SimulationTargets
from ops.stack.stack import Stack

PREFIX = "courier-"
MAX_COURIERS = 5_000
ACK_EVERY_S = "5"  # instead of 30: a demo that ends need not wait half a minute for the last ack
PROGRESS_EVERY_S = 5.0
APPLY_EVERY_S = 2.0
POLL_S = 0.25
SHOWCASE_WITHIN_S = 60.0
STOP_COURIERS_S = 80.0  # they leave when every fix is committed, or after two ack periods, 60 s
SETTLE_S = 60.0
AGAIN_AFTER_S = 1.0
SOON_S = 20.0  # the couriers need about 5 s to start: what ends within this never worked
SOON_ENDED_MAX = 3


@dataclass(frozen=True, slots=True)
class Start:
    """Where the accounts of this demo begin."""

    at: datetime
    seqs: Mapping[Boot, int]
    driver_ids: list[str]  # grows with those who join


@dataclass(frozen=True, slots=True)
class Report:
    """What the demo ended with."""

    orders: Mapping[str, int]
    ledger: Ledger
    evidence: Mapping[str, int]
    latency_ms: Mapping[str, float] | None  # None without any fix

    def as_json(self) -> str:
        """One line for programs."""
        latency = self.latency_ms or dict.fromkeys(("p50", "p95", "p99"))
        return json.dumps(
            {
                "orders": self.orders,
                "fixes": self.ledger.fixes(),
                "evidence": self.evidence,
                "latency_ms": {"publish_to_commit": latency},
            }
        )

    def as_text(self) -> str:
        """A few lines for people."""
        orders = ", ".join(f"{count} {state}" for state, count in self.orders.items() if count)
        fixes = ", ".join(f"{count:,} {what}" for what, count in self.ledger.fixes().items())
        proved = ", ".join(f"{count} {state}" for state, count in self.evidence.items())
        lines = [f"orders   {orders}", f"fixes    {fixes}", f"proved   {proved or 'nothing'}"]
        if self.latency_ms:
            late = ", ".join(f"{name} {ms:,.0f} ms" for name, ms in self.latency_ms.items())
            lines.append(f"commit   {late} after a fix was due")
        return "\n".join(lines)


class Couriers:
    """The couriers' process; started again if it dies, unless it dies again and again."""

    def __init__(self, stack: Stack, couriers: int, speedup: float, reporting: str = "all") -> None:
        argv = [*module_argv("couriers"), "--prefix", PREFIX]
        argv += ["--couriers", str(couriers), "--speedup", f"{speedup:g}"]
        argv += ["--reporting", reporting]
        self._argv = argv
        self._environment = stack.client_environment()
        self._log_file = stack.paths.logs / "couriers.log"
        self._process = self._start()
        self._started_at = time.monotonic()
        self._soon_ended = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def keep_running(self) -> None:
        """Start it again if it has died. Raises StackError if it never gets to work."""
        status, lived_s = self._process.poll(), time.monotonic() - self._started_at
        if status is None or lived_s < AGAIN_AFTER_S:
            return
        self._soon_ended = self._soon_ended + 1 if lived_s < SOON_S else 0
        if self._soon_ended == SOON_ENDED_MAX:
            said = last_line(self._log_file)
            raise StackError(f"the couriers ended {SOON_ENDED_MAX} times in a row: {said}")
        print_line(f"the couriers' process ended (status {status}): started again")
        self._process = self._start()
        self._started_at = time.monotonic()

    def stop(self) -> None:
        """Let it finish: it stops reporting and leaves when its fixes are committed."""
        self._process.terminate()
        try:
            self._process.wait(STOP_COURIERS_S)
        except subprocess.TimeoutExpired:
            print_line("the couriers did not stop in time: killed")
            self.kill()

    def kill(self) -> None:
        """End it at once; its journal keeps what was not committed."""
        self._process.kill()
        self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        return start_simulator(self._argv, self._environment, self._log_file)


def start_simulator(
    argv: list[str], environment: Mapping[str, str], log_file: Path
) -> subprocess.Popen[bytes]:
    """Start a simulator that ends with us."""
    log: IO[bytes]
    with log_file.open("ab") as log:
        return subprocess.Popen(
            as_user(None, argv, on_parent_death="TERM"),
            env=environment,
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us, and we stop it in order
        )


@contextlib.contextmanager
def only_demo(paths: StackPaths) -> Iterator[None]:
    """Be this home's only demo. Raises StackError if another one runs."""
    paths.root.mkdir(parents=True, exist_ok=True)
    with (paths.root / "demo.lock").open("a+", encoding="ascii") as file:
        file.seek(0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"a demo is running already (pid {file.read()}): end it with Ctrl-C there"
            ) from None
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def run_demo(stack: Stack, options: argparse.Namespace) -> int:
    """Run the demo; the answer is the exit status: 0 if nothing was lost."""
    if not 1 <= options.couriers <= MAX_COURIERS:
        raise StackError(f"--couriers is from 1 to {MAX_COURIERS:,}")
    if not 1 <= options.speedup <= 20:
        raise StackError("--speedup is from 1 to 20")
    if not 0 <= options.cities <= CITIES[1]:
        raise StackError(f"--cities is from 0 to {CITIES[1]}")
    if not 0 <= options.tickers <= 1000:
        raise StackError("--tickers is from 0 to 1,000")
    with only_demo(stack.paths):
        if not stack.is_up():
            stack = Stack(stack.settings, environment={"ACK_EVERY_S": ACK_EVERY_S, **os.environ})
        with stack.session():
            report = _run(stack, options)
    for line in report.ledger.complaints():
        print_line(line)
    print(report.as_json() if options.json else report.as_text(), flush=True)
    return 0 if report.ledger.agrees else 1


def _run(stack: Stack, options: argparse.Namespace) -> Report:
    driver_ids = numbered(PREFIX, options.couriers)
    stack.add_drivers(driver_ids)
    seqs = {(one.driver_id, one.boot): one.last_seq for one in read_journals(stack.paths.journals)}
    start = Start(datetime.now(UTC), seqs, driver_ids)
    couriers = Couriers(stack, options.couriers, options.speedup, options.reporting)
    wanted = {kind: getattr(options, kind) for kind in ("couriers", "cities", "tickers")}
    beside = SideSimulators(stack, wanted)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            _say_where(stack, options)
            _watch(stack, couriers, beside, start, options.exit_after)
        print_line("the couriers leave when all their fixes are committed")
        for process in beside.processes:
            process.terminate()
        couriers.stop()
        for process in beside.processes:  # the vans, too, leave when their fixes are committed
            process.wait(STOP_COURIERS_S)
        return settle(stack, start)
    finally:
        couriers.kill()
        for process in beside.processes:
            process.kill()


class SideSimulators:
    """The vans in France and the tickers: each kind's process runs once any of it is wanted."""

    def __init__(self, stack: Stack, counts: Mapping[str, int]) -> None:
        self._stack = stack
        self._wishes = SimulationTargets(
            stack.addresses.tracking_api_url, stack.paths.staff_token()
        )
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        for kind, count in counts.items():
            self._wishes.set(kind, count)  # what an earlier demo was asked for is over
            if count and kind != "couriers":
                self._start(kind)

    @property
    def processes(self) -> Sequence[subprocess.Popen[bytes]]:
        """Those that were started."""
        return [*self._started.values()]

    def apply(self, driver_ids: list[str], width: int) -> None:
        """Start what is wanted, and register the couriers who are wanted and not yet known."""
        wanted = self._wishes.read()
        for kind in ("cities", "tickers"):
            if wanted.get(kind) and kind not in self._started:
                self._start(kind)
        more = numbered(PREFIX, wanted.get("couriers", 0), width)[len(driver_ids) :]
        if more:
            self._stack.add_drivers(more)
            driver_ids += more
            print_line(f"{len(more)} more couriers are wanted: {len(driver_ids)} are registered")

    def _start(self, kind: str) -> None:
        if kind == "cities":
            self._stack.add_drivers(numbered(*CITIES))
        self._started[kind] = start_simulator(
            module_argv(kind),
            self._stack.client_environment(),
            self._stack.paths.logs / f"{kind}.log",
        )


def _watch(
    stack: Stack,
    couriers: Couriers,
    beside: SideSimulators,
    start: Start,
    exit_after_s: float | None,
) -> None:
    """Tell how it goes, until the time is over or Ctrl-C. Raises StackError after a `down`."""
    width = len(start.driver_ids[0]) - len(PREFIX)
    owner_pid = stack.owner_pid()
    began = time.monotonic()
    end = began + exit_after_s if exit_after_s is not None else float("inf")
    showcase = DemoLinks(
        stack.addresses.tracking_api_url, stack.paths.staff_token(), start.driver_ids
    )
    shown, say_at, published, counted_at = False, began + PROGRESS_EVERY_S, 0, began
    heed_at = began
    while (now := time.monotonic()) < end:
        if stack.owner_pid() != owner_pid or not stack.paths.addresses_file.exists():
            raise StackError("the stack was taken down: the demo ends with it")
        couriers.keep_running()
        if now >= heed_at:
            heed_at = now + APPLY_EVERY_S
            with contextlib.suppress(StackError, Unavailable):  # a part is away: again later
                beside.apply(start.driver_ids, width)
        if not shown and now - began < SHOWCASE_WITHIN_S:
            shown = showcase.show(print_line, now)
        if now >= say_at:
            total = _published(stack, start)
            rate = (total - published) / (now - counted_at)
            published, counted_at, say_at = total, now, now + PROGRESS_EVERY_S
            print_line(f"{_clock(now - began)}  {_state(stack, start, rate)}")
        time.sleep(min(POLL_S, max(0.0, end - now)))


def _state(stack: Stack, start: Start, rate: float) -> str:
    try:
        with owner_connection(stack.database_admin_url) as conn:
            orders = read_orders(conn, start.driver_ids, start.at)
            age_s = read_freshness_s(conn, start.driver_ids, start.at)
    except Unavailable:
        return f"{rate:.0f} fixes/s published, the database is away"
    states = " · ".join(f"{count} {state}" for state, count in orders.items() if count)
    age = f"positions {age_s:.1f} s old" if age_s is not None else "no position yet"
    return f"{states or 'no orders yet'} | {rate:.0f} fixes/s | {age}"


def _published(stack: Stack, start: Start) -> int:
    path = stack.paths.journals / "couriers.sqlite"
    if not path.exists():
        return 0
    lives = read_published(path)
    return sum(one.last_seq - start.seqs.get((one.driver_id, one.boot), 0) for one in lives)


def settle(stack: Stack, start: Start) -> Report:
    """Compare journals and database until they agree, or for a minute; then report."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        try:
            with owner_connection(stack.database_admin_url) as conn:
                lives = read_journals(stack.paths.journals)
                report = Report(
                    orders=read_orders(conn, start.driver_ids, start.at),
                    ledger=compare(conn, lives, start.seqs),
                    evidence=read_evidence(conn, start.driver_ids, start.at),
                    latency_ms=read_latency_ms(conn, start.driver_ids, start.at),
                )
            if report.ledger.agrees or time.monotonic() > deadline:
                return report
        except DoorstepError as exc:
            if not exc.retriable or time.monotonic() > deadline:
                raise
        time.sleep(1.0)


def _say_where(stack: Stack, options: argparse.Namespace) -> None:
    at, token = stack.addresses, stack.paths.staff_token()
    pace = "real speed" if options.speedup == 1 else f"{options.speedup:g} times the speed"
    print_line(f"{options.couriers} couriers at {pace}; Ctrl-C stops")
    print_line(f"  map of the fleet  {at.tracking_api_url}/fleet#{token}")
    print_line(f"  series            {at.tracking_api_url}/series#{token}")
    print_line(f"  tracking_api      {at.tracking_api_url}/docs")
    print_line(f"  driver_api        {at.driver_api_url}/docs")
    print_line(f"  MQTT              {at.mqtt_url}")


def last_line(log: Path) -> str:
    """Read the last line of a log that says anything."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02}:{rest:02}"
