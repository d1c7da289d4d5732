"""`./run rebuild`: works all evidence and states out again, and compares them with what stands."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from uuid import UUID

from doorstep.errors import NotFound
from doorstep.provision import owner_connection
from ops.commands.rebuild import Difference, Rebuilder, Rebuilt
from ops.commands.runner import run_command, say
from ops.commands.settings import OperatorSettings

EXAMPLES = """examples:
  ./run rebuild                                 compare everything; nothing is changed
  ./run rebuild --driver anna --driver bruno    these drivers and the orders they have or had
  ./run rebuild --order 2f3c…                   one order
  ./run rebuild --apply                         and write what the record says where it differs

The record is the history of fixes and the commands; evidence, the orders' and drivers' states,
newest positions and the boots' ledgers follow from it. What was sealed is taken as it stands.
The exit status is 0 if all is as the record says, or was mended, and 1 if not."""
SAY_EVERY_S = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the answer is the exit status."""
    options = _parser().parse_args(argv)
    return run_command("rebuild", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    started = time.monotonic()
    settings = OperatorSettings.load()
    with owner_connection(settings.database_admin_url.get_secret_value()) as conn:
        rebuilt, mended = rebuild(
            Rebuilder(conn), options.order, options.driver, apply=options.apply, say=_say
        )
    if options.json:
        seconds = round(time.monotonic() - started, 1)
        print(json.dumps(asdict(rebuilt) | {"mended": mended, "seconds": seconds}))
    else:
        for one in rebuilt.differences:
            print(one.line())
        print(summary(rebuilt, mended))
    return 0 if len(rebuilt.differences) == mended else 1


def rebuild(
    rebuilder: Rebuilder,
    order_ids: Sequence[UUID] = (),
    driver_ids: Sequence[str] = (),
    *,
    apply: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> tuple[Rebuilt, int]:
    """Compare, and mend if `apply`; returns what was found, and how much of it was mended.

    Without ids everything is looked at. Raises NotFound for an id that is nobody's.
    """
    unknown = rebuilder.unknown(order_ids, driver_ids)
    if unknown:
        raise NotFound(f"there is no {', no '.join(unknown)}")
    chosen = _Chosen(rebuilder, order_ids, driver_ids)
    rebuilt, mended = Rebuilt(), 0
    progress = _Progress(say, chosen.totals)
    otherwise: list[Difference] = []
    for ids in chosen.orders:
        found = rebuilder.compare_orders(ids, rebuilt)
        if found and apply:
            found = rebuilder.mend_orders(ids)
            mended += len(found)
        else:
            otherwise += found
        rebuilt.differences += found
        progress.note(rebuilt)
    for names in chosen.drivers:
        found = rebuilder.compare_drivers(names, otherwise, rebuilt)
        if found and apply:
            found = rebuilder.mend_drivers(names)
            mended += len(found)
        rebuilt.differences += found
        progress.note(rebuilt)
    return rebuilt, mended


class _Chosen:
    """What is to be looked at."""

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
    """A line every two seconds."""

    def __init__(self, say: Callable[[str], None], totals: tuple[int, int]) -> None:
        self._say = say
        self._orders, self._drivers = totals
        self._next_at = time.monotonic() + SAY_EVERY_S

    def note(self, rebuilt: Rebuilt) -> None:
        if time.monotonic() < self._next_at:
            return
        self._next_at = time.monotonic() + SAY_EVERY_S
        self._say(
            f"{rebuilt.orders:,} of {self._orders:,} orders, {rebuilt.fixes:,} fixes,"
            f" {rebuilt.drivers:,} of {self._drivers:,} drivers,"
            f" {len(rebuilt.differences)} differences"
        )


def summary(rebuilt: Rebuilt, mended: int) -> str:
    """Say how it went."""
    text = (
        f"worked out again: {rebuilt.orders:,} orders with {rebuilt.assignments:,} assignments from"
        f" {rebuilt.fixes:,} fixes, {rebuilt.drivers:,} drivers"
    )
    if rebuilt.sealed:
        text += f" ({rebuilt.sealed:,} assignments are sealed: their evidence as it stands)"
    if not rebuilt.differences:
        return f"{text}: all as it stands"
    text += f": {len(rebuilt.differences)} differ"
    return f"{text}, {mended} mended" if mended else f"{text}; --apply writes what is expected"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run rebuild",
        description="Works evidence and states out again from the record, and compares.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--driver", action="append", default=[], metavar="ID", help="only theirs")
    parser.add_argument(
        "--order", action="append", default=[], metavar="ID", type=UUID, help="only this one"
    )
    parser.add_argument("--apply", action="store_true", help="write what is expected")
    parser.add_argument("--json", action="store_true", help="the answer for programs")
    return parser


def _say(line: str) -> None:
    say("rebuild", line)


if __name__ == "__main__":
    sys.exit(main())
