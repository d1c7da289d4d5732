"""`./run backup`, `backups` and `restore`."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime, timedelta

from doorstep.errors import SettingsError
from ops.backup.restore import restore as restore_database
from ops.console import print_line
from ops.stack.backup_repository import Backup, RepositoryInfo, Verification
from ops.stack.stack import Stack

BACKUP_EXAMPLES = """examples:
  ./run backup                        the first is full, later ones hold what has changed
  ./run backup --full
  ./run backup --diff                 all that has changed since the last full one
  BACKUP_DIR=/mnt/disk2/doorstep ./run backup

The first backup also switches on the archive of WAL and the schedule (BACKUP_EVERY_H). Each backup
is verified. It holds personal data and hashes of secrets, not the folder `secrets`."""
BACKUPS_EXAMPLES = """examples:
  ./run backups
  ./run backups --verify              read every file again first
  ./run backups --json"""
RESTORE_EXAMPLES = """examples:
  ./run restore                                the newest state
  ./run restore --to 2026-11-29T18:30:00Z      the last commit before that instant
  ./run restore --to '2026-11-29 18:30' --yes  local time; do not ask

Stops the services and PostgreSQL, and starts them again. The database's folder is kept beside the
new one, and comes back if the restore fails; --in-place needs less disk. Revocations and erasures
that were made later stay. docs/how-to/backup.md says what can be missing."""


def backup(stack: Stack, options: argparse.Namespace) -> int:
    """Make a backup and verify it; the return value is the exit status. Raises StackError."""
    addresses = stack.addresses  # raises if the stack is not up
    stack.set_up_backups()
    repository = stack.backups()
    made = stack.back_up(options.kind)
    verified = repository.verify()
    print(_line(made, verified))
    print_line(f"in {repository.folder}; metrics at http://{addresses.backups}/metrics")
    return 0 if verified.is_valid else 1


def backups(stack: Stack, options: argparse.Namespace) -> int:
    """List the backups. The exit status is 1 if there is none, or one is damaged."""
    repository = stack.backups()
    repository.check_present()
    if options.verify and repository.is_in_use:
        repository.verify()
    info, verified = repository.info(), repository.last_verification()
    if options.json:
        print(json.dumps(_as_dict(info, verified)))
    elif not info.backups:
        print(f"there is no backup in {repository.folder}")
    else:
        now = datetime.now(UTC)
        for one in info.backups:
            print(f"{_line(one, verified)} {_age(now - one.ended_at)}")
        print(f"WAL {info.first_wal} to {info.last_wal}, in {repository.folder}")
        if verified is not None:
            result = "valid" if verified.is_valid else f"DAMAGED: {verified.detail}"
            print(f"verified {verified.at:%Y-%m-%d %H:%M:%S}Z: {result}")
    return 0 if info.backups and (verified is None or verified.is_valid) else 1


def restore(stack: Stack, options: argparse.Namespace) -> int:
    """Restore the database; the return value is the exit status. Raises StackError."""
    to = None if options.to is None else parse_instant(options.to)
    if not options.yes and not _confirmed(to):
        print_line("nothing was done")
        return 2
    restored = restore_database(stack, to, print_line, in_place=options.in_place)
    for line in restored.lines():
        print(line)
    return 0


def parse_instant(text: str) -> datetime:
    """Parse ISO 8601; without a zone it is local time. Raises SettingsError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise SettingsError(f"{text!r} is not a time such as 2026-11-29T18:30:00Z") from exc
    return at.astimezone(UTC)


def add_backup_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `backup`."""
    kind = parser.add_mutually_exclusive_group()
    for name, help_text in (
        ("full", "everything, not only what has changed"),
        ("diff", "what has changed since the last full one (since the last one)"),
    ):
        kind.add_argument(
            f"--{name}", dest="kind", action="store_const", const=name, help=help_text
        )
    parser.set_defaults(kind="incr")


def add_backups_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `backups`."""
    parser.add_argument("--verify", action="store_true", help="read every file again first")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_restore_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `restore`."""
    parser.add_argument("--to", metavar="TIME", help="an earlier instant (the newest state)")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="overwrite the database's folder (keep it under another name)",
    )


def _confirmed(to: datetime | None) -> bool:
    target = "its newest state" if to is None else f"{to:%Y-%m-%d %H:%M:%S}Z; later commands go"
    print_line(f"This replaces the database by {target}.")
    if not sys.stdin.isatty():
        print_line("run: add --yes")
        return False
    return input("Go on? [y/N] ").strip().lower() in ("y", "yes")


def _line(one: Backup, verified: Verification | None) -> str:
    state = "valid" if _is_verified(one, verified) else "not verified"
    return (
        f"{one.ended_at:%Y-%m-%d %H:%M:%S}Z {one.kind:<4} {one.repository_bytes / 1e6:>9,.1f} MB "
        f"of {one.database_bytes / 1e6:,.1f} MB  {state:<12} WAL {one.first_wal}-{one.last_wal}"
    )


def _age(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    if hours < 1:
        return f"{hours * 60:.0f} min old"
    return f"{hours:.0f} h old" if hours < 48 else f"{hours / 24:.0f} days old"


def _is_verified(one: Backup, verified: Verification | None) -> bool:
    return verified is not None and verified.is_valid and one.ended_at <= verified.at


def _as_dict(info: RepositoryInfo, verified: Verification | None) -> dict[str, object]:
    return {
        "backups": [
            {
                "label": one.label,
                "type": one.kind,
                "started_at": one.started_at.isoformat(),
                "ended_at": one.ended_at.isoformat(),
                "age_s": round((datetime.now(UTC) - one.ended_at).total_seconds()),
                "database_bytes": one.database_bytes,
                "repository_bytes": one.repository_bytes,
                "verified": _is_verified(one, verified),
                "wal": [one.first_wal, one.last_wal],
            }
            for one in info.backups
        ],
        "wal": [info.first_wal, info.last_wal],
        "verified_at": verified and verified.at.isoformat(),
        "is_valid": verified and verified.is_valid,
    }
