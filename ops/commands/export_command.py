"""`./run export`: writes all that is stored of a driver or an order as JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, groupby
from pathlib import Path
from typing import TextIO

from doorstep.provision import owner_connection
from doorstep.store.people import record_audit
from doorstep.store.personal_data import export_driver, export_order
from ops.commands.runner import BadArgument, as_order_id, run_command
from ops.commands.settings import OperatorSettings
from ops.console import operator, print_line

EXAMPLES = """examples:
  ./run export driver anna > anna.json
  ./run export driver anna --to anna.json
  ./run export order 3f0f6a52-6f1c-4a52-a1a5-5c51b3f1a9d4

One JSON object: `tables` has an array of rows per table of the database. It is complete: tables
are found by their columns. Hashes of tokens are left out, and what tells of someone else: a
driver's export has no customer's name or address, an order's has no driver. Fixes of packed days
are in `fix_chunk`, the others in `fix_history`.
A file is made readable for its owner only. The exit status is 0, 2 for an unknown id or a file
that exists, or 1 on another error."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the return value is the exit status."""
    options = _parser().parse_args(argv)
    return run_command("export", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    settings = OperatorSettings.load()
    is_driver = options.kind == "driver"
    person_id = options.id if is_driver else as_order_id(options.id)
    with owner_connection(settings.database_admin_url.get_secret_value()) as conn:
        rows = (export_driver if is_driver else export_order)(conn, person_id)
        first = next(rows)  # raises for an unknown id, before a file is made
        with _target(options.to) as target:
            write_export(target, options.kind, person_id, chain([first], rows))
        conn.rollback()
        record_audit(conn, operator(), f"{options.kind}.export", person_id)
        conn.commit()
    if options.to:
        print_line(f"wrote {options.to}")
    return 0


def write_export(
    target: TextIO, kind: str, person_id: str, rows: Iterable[tuple[str, str]]
) -> None:
    """Write the rows, table by table, as they come."""
    head = {"kind": kind, "id": person_id, "exported_at": datetime.now(UTC).isoformat()}
    target.write(json.dumps(head)[:-1] + ', "tables": {')
    for number, (table, of_table) in enumerate(groupby(rows, key=lambda row: row[0])):
        target.write(f"{',' if number else ''}\n {json.dumps(table)}: [")
        target.writelines(
            f"{',' if nth else ''}\n  {row}" for nth, (_table, row) in enumerate(of_table)
        )
        target.write("]")
    target.write("}}\n")


@contextmanager
def _target(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as exc:
        raise BadArgument(f"{path}: {exc.strerror}") from exc
    with open(number, "w", encoding="utf-8") as file:
        yield file


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run export",
        description="Write all that is stored of a driver or an order as JSON.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=["driver", "order"])
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--to", type=Path, metavar="FILE", help="a new file (standard output)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
