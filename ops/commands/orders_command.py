"""`./run orders import`: creates orders from CSV, over tracking_api."""

from __future__ import annotations

import argparse
import json
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops import api_client
from ops.console import escaped, print_line
from ops.stack.stack import Stack

DESCRIPTION = "Create orders from CSV files. A file is imported whole or not at all."
EXAMPLES = """examples:
  ./run orders import today.csv --dry-run    check and count only
  ./run orders import today.csv              create them; prints external_id, order id and link
  ./run orders import today.csv --json

A file:
  external_id,restaurant_id,lon_deg,lat_deg,customer_name,address
  A-1042,3,11.2558,43.7731,Rossi,Via dei Neri 8

An external_id that was imported before, with the same values, is unchanged: repeat the command
after an error. The links are printed once. docs/reference/http-and-streams.md lists the columns."""

TIMEOUT_S = 60.0


class ImportRefused(Exception):
    """The file is bad: `lines` say where."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("action", choices=["import"])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.csv")
    parser.add_argument("--dry-run", action="store_true", help="check and count only")
    parser.add_argument("--json", action="store_true", help="print one JSON object per file")


def orders(stack: Stack, options: argparse.Namespace) -> int:
    """Run the command; the return value is the exit status."""
    if not stack.is_up():
        print_line("run: no stack is up: ./run up")
        return 1
    url = f"{stack.addresses.tracking_api_url}/orders/import"
    for n, path in enumerate(options.files, 1):
        print_line(f"{path} ({n} of {len(options.files)})")
        try:
            done = send(url, stack.paths.staff_token(), path.read_bytes(), options.dry_run)
        except ImportRefused as exc:
            for line in exc.lines:
                print_line(f"run: {path}: {line}")
            return 1
        except OSError as exc:
            reason = getattr(exc, "reason", None) or exc.strerror or exc
            print_line(f"run: {path} is not imported: {reason}; repeat the command")
            return 1
        _report(done, options)
    return 0


def send(url: str, token: str, content: bytes, dry_run: bool) -> Mapping[str, Any]:
    """Import one file. Raises ImportRefused, and OSError if the answer does not arrive."""
    try:
        done: Mapping[str, Any] = api_client.send(
            f"{url}?dry_run={str(dry_run).lower()}",
            *(token, "POST", content, "text/csv"),
            timeout_s=TIMEOUT_S,
        )
    except urllib.error.HTTPError as exc:
        with exc:
            raise ImportRefused(complaints_of(exc.code, exc.read())) from exc
    return done


def complaints_of(status: int, body: bytes) -> list[str]:
    """Return the lines of a problem document: each bad line and field, or its one sentence."""
    try:
        problem = json.loads(body)
        errors = [f"{one['loc']}: {one['msg']}" for one in problem.get("errors") or ()]
        lines = errors or [str(problem.get("detail") or problem["title"])]
    except (ValueError, KeyError, TypeError, AttributeError):
        lines = [f"the API answered {status}"]
    return [escaped(line) for line in lines]


def _report(done: Mapping[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(done))
        return
    for one in done["orders"]:
        print(f"{escaped(one['external_id'])} {one['order_id']} {one['customer_link']}")
    verb = "would create" if options.dry_run else "created"
    print_line(f"{verb} {done['created']:,}, unchanged {done['unchanged']:,}")
