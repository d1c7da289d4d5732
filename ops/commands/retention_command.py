"""`./run retention`: prints and sets how long personal data are kept."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import psycopg

from doorstep.provision import owner_connection
from doorstep.store.personal_data import (
    keeps_off_duty,
    list_retention,
    set_keep_off_duty,
    set_retention,
)
from ops.commands.runner import BadArgument, run_command
from ops.commands.settings import OperatorSettings
from ops.console import operator

WHAT = {
    "alerts": "resolved alerts, with who acknowledged them",
    "audit": "entries of the audit",
    "clocks": "how far phones' clocks were ahead",
    "commands": "duty commands, and the names of the people in ended orders",
    "contacts": "name, vehicle and phone of removed drivers",
    "deliveries": "ended deliveries of webhooks",
    "photos": "photos of deliveries",
    "history": "fixes, and a driver's newest position",
    "orders": "name, destination and links of the customers of ended orders",
    "tokens": "hashes of tokens that open nothing any more",
}
OFF_DUTY = "off-duty"
EXAMPLES = """examples:
  ./run retention                     for how many days each kind is kept
  ./run retention orders 30           customers of ended orders: 30 days from now on
  ./run retention off-duty keep       also keep positions of drivers who are off duty
  ./run retention off-duty drop       drop them on arrival (the default)

driver_events deletes what is past its days once an hour. Each change is in the audit."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the return value is the exit status."""
    options = _parser().parse_args(argv)
    return run_command("retention", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    settings = OperatorSettings.load()
    with owner_connection(settings.database_admin_url.get_secret_value()) as conn:
        if options.kind is not None:
            _change(conn, options.kind, options.value)
            conn.commit()
        for kept in list_retention(conn):
            print(f"{kept.kind:<10} {kept.days:>4} days   {WHAT.get(kept.kind, '')}")
        word = "kept" if keeps_off_duty(conn) else "dropped"
        print(f"{OFF_DUTY:<10} {word:>9}   positions of drivers who are off duty")
    return 0


def _change(conn: psycopg.Connection[Any], kind: str, value: str | None) -> None:
    if kind == OFF_DUTY:
        if value not in ("keep", "drop"):
            raise BadArgument("say `off-duty keep` or `off-duty drop`")
        set_keep_off_duty(conn, value == "keep", operator())
        return
    [kept] = [one for one in list_retention(conn) if one.kind == kind]
    days = int(value) if value and value.isascii() and value.isdecimal() else 0
    if not kept.least_days <= days <= 36_500:
        raise BadArgument(f"{kind} is kept for {kept.least_days} to 36,500 days")
    set_retention(conn, kind, days, operator())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run retention",
        description="Print or set how long personal data are kept.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", nargs="?", choices=[*WHAT, OFF_DUTY])
    parser.add_argument("value", nargs="?", metavar="DAYS", help="or `keep` and `drop`")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
