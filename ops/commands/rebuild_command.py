"""`./run rebuild`: recomputes evidence and states, and compares them with the stored ones."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from uuid import UUID

from doorstep.errors import NotFound
from doorstep.provision import owner_connection
from ops.commands.rebuild import Difference, Rebuilder, Rebuilt
from ops.commands.runner import run_command
from ops.commands.settings import OperatorSettings
from ops.console import Echo, print_line

EXAMPLES = """examples:
  ./run rebuild                                 compare everything, and change nothing
  ./run rebuild --driver anna --driver bruno    these drivers and all their orders
  ./run rebuild --order 2f3c…                   one order
  ./run rebuild --apply                         also write the expected rows

The sources are the history of fixes and the recorded commands. From them the command recomputes
evidence, the states of orders and drivers, the newest positions and the seqs of each boot. It
trusts the stored evidence of sealed assignments. The exit status is 0 if there are no differences
or all were repaired, else 1."""
PROGRESS_EVERY_S = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the return value is the exit status."""
    options = _parser().parse_args(argv)
    return run_command("rebuild", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    started = time.monotonic()
    settings = OperatorSettings.load()
    with owner_connection(settings.database_admin_url.get_secret_value()) as conn:
        rebuilt, repaired = rebuild(
            Rebuilder(conn), options.order, options.driver, apply=options.apply, echo=_echo
        )
    if options.json:
        seconds = round(time.monotonic() - started, 1)
        print(json.dumps(asdict(rebuilt) | {"repaired": repaired, "seconds": seconds}))
    else:
        for one in rebuilt.differences:
            print(one.line())
        print(summary(rebuilt, repaired))
    return 0 if len(rebuilt.differences) == repaired else 1


def rebuild(
    rebuilder: Rebuilder,
    order_ids: Sequence[UUID] = (),
    driver_ids: Sequence[str] = (),
    *,
    apply: bool = False,
    echo: Echo = lambda _line: None,
) -> tuple[Rebuilt, int]:
    """Compare, and repair if `apply`. Returns the result and the number of repaired rows.

    Without ids, compares everything. Raises NotFound for an unknown id.
    """
    unknown = rebuilder.unknown(order_ids, driver_ids)
    if unknown:
        raise NotFound(f"not found: {', '.join(unknown)}")
    selection = _Selection(rebuilder, order_ids, driver_ids)
    rebuilt, repaired = Rebuilt(), 0
    progress = _Progress(echo, selection.totals)
    unrepaired: list[Difference] = []
    for ids in selection.orders:
        found = rebuilder.compare_orders(ids, rebuilt)
        if found and apply:
            found = rebuilder.repair_orders(ids)
            repaired += len(found)
        else:
            unrepaired += found
        rebuilt.differences += found
        progress.update(rebuilt)
    for driver_chunk in selection.drivers:
        found = rebuilder.compare_drivers(driver_chunk, unrepaired, rebuilt)
        if found and apply:
            found = rebuilder.repair_drivers(driver_chunk)
            repaired += len(found)
        rebuilt.differences += found
        progress.update(rebuilt)
    return rebuilt, repaired


class _Selection:
    """The orders and drivers to compare, in chunks."""

    def __init__(
        self, rebuilder: Rebuilder, order_ids: Sequence[UUID], driver_ids: Sequence[str]
    ) -> None:
        self.orders: Iterable[list[UUID]] = rebuilder.order_ids()
        self.drivers: Iterable[list[str]] = rebuilder.driver_ids()
        self.totals = rebuilder.count()
        if order_ids or driver_ids:
            orders = sorted({*order_ids, *rebuilder.orders_of(driver_ids)})
            drivers = sorted(set(driver_ids))
            self.orders = [[one] for one in orders]
            self.drivers = [[one] for one in drivers]
            self.totals = (len(orders), len(drivers))


class _Progress:
    """Prints a line every PROGRESS_EVERY_S."""

    def __init__(self, echo: Echo, totals: tuple[int, int]) -> None:
        self._echo = echo
        self._orders, self._drivers = totals
        self._next_at = time.monotonic() + PROGRESS_EVERY_S

    def update(self, rebuilt: Rebuilt) -> None:
        if time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + PROGRESS_EVERY_S
        self._echo(
            f"{rebuilt.orders:,} of {self._orders:,} orders, {rebuilt.fixes:,} fixes,"
            f" {rebuilt.drivers:,} of {self._drivers:,} drivers,"
            f" {len(rebuilt.differences)} differences"
        )


def summary(rebuilt: Rebuilt, repaired: int) -> str:
    """Describe the result in a sentence."""
    text = (
        f"recomputed: {rebuilt.orders:,} orders with {rebuilt.assignments:,} assignments from"
        f" {rebuilt.fixes:,} fixes, {rebuilt.drivers:,} drivers"
    )
    if rebuilt.sealed:
        text += f" ({rebuilt.sealed:,} assignments are sealed: their stored evidence is trusted)"
    if not rebuilt.differences:
        return f"{text}: no differences"
    text += f": {len(rebuilt.differences)} differences"
    return f"{text}, {repaired} repaired" if repaired else f"{text}; --apply repairs them"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run rebuild",
        description="Recompute evidence and states from the history, and compare them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--driver", action="append", default=[], metavar="ID", help="only this driver"
    )
    parser.add_argument(
        "--order", action="append", default=[], metavar="ID", type=UUID, help="only this order"
    )
    parser.add_argument("--apply", action="store_true", help="write the expected rows")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _echo(line: str) -> None:
    print_line(f"rebuild: {line}")


if __name__ == "__main__":
    sys.exit(main())
