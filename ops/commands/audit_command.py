"""`./run audit`: prints who did what, to whom and when."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime

from doorstep.provision import owner_connection
from doorstep.store.people import AuditEntry, read_audit
from ops.commands.runner import BadArgument
from ops.commands.times import parse_time
from ops.console import escaped
from ops.stack.stack import Stack

DESCRIPTION = "Print the audit: commands, changes of credentials and staff, reads of positions."
EXAMPLES = """examples:
  ./run audit                                all entries, the oldest first
  ./run audit --who anna                     those of one name; `run:USER` is `./run` itself
  ./run audit --since 2h                     of the last two hours
  ./run audit --since 2026-01-31T12:00Z      from an instant on
  ./run audit --json                         a JSON object per line

Reads are one entry per person and minute, with the number of reads per route. No role of the
database can change an entry, or delete one before its retention ends."""


def audit(stack: Stack, options: argparse.Namespace) -> int:
    """Run the command; the return value is the exit status."""
    with owner_connection(stack.database_admin_url) as conn:
        for entry in read_audit(conn, options.who, options.since):
            print(_json(entry) if options.json else line_of(entry))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--who", metavar="NAME")
    parser.add_argument(
        "--since",
        type=_since,
        metavar="T",
        help="an age such as 2h, 30min or 3d, or an instant (UTC)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object per line")


def _since(text: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)  # also a day, or an instant without its zone
    except ValueError:
        try:
            return datetime.fromtimestamp(parse_time(text, datetime.now(UTC)) / 1000, UTC)
        except BadArgument as exc:
            raise argparse.ArgumentTypeError(str(exc)) from exc
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def line_of(entry: AuditEntry) -> str:
    """Return an entry as one line. What a request named may hold control characters."""
    detail = json.dumps(entry.detail) if entry.detail else ""
    words = (f"{entry.at:%Y-%m-%dT%H:%M:%SZ}", entry.who, entry.action, entry.subject, detail)
    return escaped(" ".join(word for word in words if word))


def _json(entry: AuditEntry) -> str:
    return json.dumps(
        {
            "at": entry.at.isoformat(),
            "who": entry.who,
            "action": entry.action,
            "subject": entry.subject,
            "detail": entry.detail,
        }
    )
