"""`./run demo`: couriers deliver orders in a city, on a stack that the demo starts and stops.

start the stack ─ refuse if it has drivers or orders that are not a demo's
end the orders that an earlier demo left open ─ start the couriers
  └─ print the links, then every few seconds orders by state, fixes per second, age of positions
stop the couriers once their fixes are committed ─ compare journals and database
  └─ end the open orders, whatever has happened ─ stop the stack ─ print the report

A second Ctrl-C skips what the first one waits for: the fixes and the report, not the open orders.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import FrameType

from device.journal import read_published
from doorstep.errors import DoorstepError, Unavailable
from doorstep.provision import numbered_ids, owner_connection
from ops.console import print_line
from ops.demo.couriers import PREFIX, CouriersProcess, wait_for_earlier_couriers
from ops.demo.links import DemoLinks
from ops.demo.open_orders import end_open_orders
from ops.demo.options import DemoOptions
from ops.demo.other_fleet import refuse_beside_other_fleet
from ops.demo.report import DemoReport, DemoStart, make_report
from ops.demo.side_simulators import SideSimulators
from ops.fleet_statistics import read_freshness_s, read_orders
from ops.ledger import read_journals
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.stack import Stack

ACK_EVERY_S = "5"  # instead of 30, so that the couriers stop sooner
PROGRESS_EVERY_S = 5.0
APPLY_TARGETS_EVERY_S = 2.0
LINKS_WITHIN_S = 60.0
POLL_S = 0.25
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_demo(stack: Stack, arguments: argparse.Namespace) -> int:
    """Run the demo; the return value is the exit status: 0 if journals and database agree."""
    options = DemoOptions.of(arguments, stack.settings.cities_root)
    with only_demo(stack.paths):
        if not stack.is_up():
            stack = Stack(stack.settings, environment={"ACK_EVERY_S": ACK_EVERY_S, **os.environ})
        with stack.session():
            report = _run(stack, options)
    for line in report.hints():
        print_line(line)
    print(report.as_json() if options.as_json else report.as_text(), flush=True)
    return 0 if report.ledger.agrees else 1


@contextlib.contextmanager
def only_demo(paths: StackPaths) -> Iterator[None]:
    """Hold the lock of this stack's demo. Raises StackError if another demo runs."""
    paths.root.mkdir(parents=True, exist_ok=True)
    with paths.demo_lock_file.open("a+", encoding="ascii") as file:
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


def _run(stack: Stack, options: DemoOptions) -> DemoReport:
    refuse_beside_other_fleet(stack)
    driver_ids = numbered_ids(PREFIX, options.couriers)
    stack.add_drivers(driver_ids)
    wait_for_earlier_couriers(stack)
    _end_open_orders(stack, "that an earlier demo left open")
    seqs = {(one.driver_id, one.boot): one.last_seq for one in read_journals(stack.paths.journals)}
    start = DemoStart(datetime.now(UTC), seqs, driver_ids)
    side_simulators = SideSimulators(stack, options.targets)
    couriers = CouriersProcess(
        stack, options.couriers, options.speedup, options.reporting, options.city
    )
    try:
        with contextlib.suppress(KeyboardInterrupt):
            _print_addresses(stack, options)
            _watch(stack, couriers, side_simulators, start, options.exit_after_s)
        print_line("stopping the couriers once all their fixes are committed")
        side_simulators.terminate()
        couriers.stop()
        side_simulators.wait()
        return make_report(stack, start)
    finally:
        with _uninterrupted():
            couriers.kill()
            side_simulators.kill()
            _end_open_orders(stack, "that were still open")


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM: what runs here ends within END_WITHIN_S."""
    handlers = {number: signal.signal(number, _say_ending) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _say_ending(_signal: int, _frame: FrameType | None) -> None:
    os.write(2, b"\nending the open orders\n")  # not print(), which the signal may interrupt


def _end_open_orders(stack: Stack, which: str) -> None:
    try:
        ended = end_open_orders(stack)
    except (OSError, ValueError, DoorstepError) as exc:
        print_line(f"cannot end the orders {which}: {exc}")
        return
    if ended:
        print_line(f"cancelled or failed {ended:,} orders {which}")


def _watch(
    stack: Stack,
    couriers: CouriersProcess,
    side_simulators: SideSimulators,
    start: DemoStart,
    exit_after_s: float | None,
) -> None:
    """Report progress until the time is over or Ctrl-C. Raises StackError after `./run down`."""
    width = len(start.driver_ids[0]) - len(PREFIX)
    owner_pid = stack.owner_pid()
    links = DemoLinks(stack.addresses.tracking_api_url, stack.paths.staff_token(), start.driver_ids)
    progress = _Progress(stack, start)
    started_at = apply_targets_at = time.monotonic()
    end_at = started_at + exit_after_s if exit_after_s is not None else float("inf")
    links_shown = False
    while (now := time.monotonic()) < end_at:
        if stack.owner_pid() != owner_pid or not stack.paths.addresses_file.exists():
            raise StackError("the stack was stopped, and the demo with it")
        couriers.keep_running()
        if now >= apply_targets_at:
            apply_targets_at = now + APPLY_TARGETS_EVERY_S
            with contextlib.suppress(StackError, Unavailable):  # retried with the next targets
                side_simulators.apply(start.driver_ids, width)
        if not links_shown and now - started_at < LINKS_WITHIN_S:
            links_shown = links.show(print_line, now)
        progress.update(now)
        time.sleep(min(POLL_S, max(0.0, end_at - now)))


class _Progress:
    """Prints a line every PROGRESS_EVERY_S."""

    def __init__(self, stack: Stack, start: DemoStart) -> None:
        self._stack = stack
        self._start = start
        self._started_at = self._counted_at = time.monotonic()
        self._published = 0

    def update(self, now: float) -> None:
        """Print the next line if it is due."""
        elapsed_s = now - self._counted_at
        if elapsed_s < PROGRESS_EVERY_S:
            return
        published = self._count_published()
        fixes_per_s = (published - self._published) / elapsed_s
        self._published, self._counted_at = published, now
        minutes, seconds = divmod(int(now - self._started_at), 60)
        print_line(f"{minutes:02}:{seconds:02}  {self._describe(fixes_per_s)}")

    def _describe(self, fixes_per_s: float) -> str:
        start = self._start
        try:
            with owner_connection(self._stack.database_admin_url) as conn:
                orders = read_orders(conn, start.driver_ids, start.at)
                age_s = read_freshness_s(conn, start.driver_ids, start.at)
        except Unavailable:
            return f"{fixes_per_s:.0f} fixes/s published, the database does not answer"
        states = " · ".join(f"{count} {state}" for state, count in orders.items() if count)
        age = f"positions {age_s:.1f} s old" if age_s is not None else "no position yet"
        return f"{states or 'no orders yet'} | {fixes_per_s:.0f} fixes/s | {age}"

    def _count_published(self) -> int:
        journal = self._stack.paths.journals / "couriers.sqlite"
        if not journal.exists():
            return 0
        seqs = self._start.seqs
        boots = read_published(journal)
        return sum(one.last_seq - seqs.get((one.driver_id, one.boot), 0) for one in boots)


def _print_addresses(stack: Stack, options: DemoOptions) -> None:
    addresses, token = stack.addresses, stack.paths.staff_token()
    pace = "real speed" if options.speedup == 1 else f"{options.speedup:g} times real speed"
    print_line(
        f"{options.couriers} couriers in {options.city.title} at {pace}; Ctrl-C stops the demo"
    )
    fleet_page = f"/fleet?city={options.city.name}"
    print_line(f"  map of the fleet  {stack.public_url}/sign-in?next={fleet_page}#{token}")
    print_line(f"  series            {stack.public_url}/series")
    if addresses.prometheus is not None:
        print_line(f"  dashboards        {stack.public_url}/observe")
    print_line(f"  tracking_api      http://{addresses.tracking_api_internal}/docs")
    print_line(f"  driver_api        http://{addresses.driver_api_internal}/docs")
    print_line(f"  MQTT              {addresses.mqtt_tls_url or addresses.mqtt_url}")
