"""`./run drivers import`: registers drivers, and sets name, vehicle and phone, from CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from doorstep.administration.csv_table import DRIVERS, CsvRow, check_new, read_csv
from doorstep.errors import MalformedCsv
from doorstep.provision import owner_connection
from doorstep.store.people import change_driver
from ops.commands.broker_users import refusal
from ops.console import operator, print_line
from ops.stack.stack import Stack

ACTION = "import"


def import_drivers(stack: Stack, paths: Sequence[str]) -> int:
    """Import files, and return the exit status. Nothing is written if a row is bad."""
    if not paths:
        print_line(f"run: name a file: ./run drivers {ACTION} FILE.csv")
        return 2
    rows: list[CsvRow] = []
    for path in paths:
        try:
            found = read_csv(DRIVERS, Path(path).read_bytes())
            errors = [one for row in found for one in check_new(DRIVERS, row)]
            if errors:
                raise MalformedCsv(errors)
        except OSError as exc:
            print_line(f"run: {path} cannot be read: {exc.strerror}")
            return 1
        except MalformedCsv as exc:
            for one in exc.errors:
                print_line(f"run: {path}: {one['loc']}: {one['msg']}")
            return 1
        rows += found
    locked_out = stack.add_drivers([row.key for row in rows], again=True)
    refused = {one.device_id for one in locked_out}
    with owner_connection(stack.database_admin_url) as conn:
        for row in rows:
            if row.values and row.key not in refused:
                change_driver(conn, row.key, row.values, operator())
        conn.commit()
    print_line(f"imported {len(rows) - len(refused)}")
    for device in locked_out:
        print_line(refusal(device))
    if len(refused) < len(rows):
        print_line("next: ./run drivers invite ID")
    return 1 if locked_out else 0
