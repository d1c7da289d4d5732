"""Keeps credentials, revocations and erasures outside the database: no restore undoes them.

The log is append-only: one JSON object a line, with the row as it was. The last line of a key
counts. A device has a generation, a member of staff an instant of change, and a token ends once:
so applying the log to any state, and again, gives the newest of both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import psycopg
from psycopg.types.json import Jsonb

from doorstep.errors import DoorstepError
from doorstep.store.error_mapping import translated
from doorstep.store.personal_data import forget_driver, forget_order
from ops.stack.backup_repository import CONFIG, BackupError
from sql import query

QUERIES = "queries/backup.sql"
OVERLAP = timedelta(minutes=15)  # longer than any transaction that erases
WHO = "run:restore"  # in the audit
_WAITING = "revocations wait in the database until it is there"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: the row of a device, a member of staff or a token, or an erasure."""

    at: datetime
    kind: str
    key: str
    row: dict[str, Any]


@dataclass(slots=True)
class Applied:
    """What a restore had undone, and the log has done again."""

    credentials: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    not_forgotten: list[str] = field(default_factory=list)  # refused, with the reason


class CredentialLog:
    """The file. One process writes it at a time.

    It is written only beside pgBackRest's configuration. While that is missing, the disk of the
    backups is not mounted; what has changed stays in the database, and is appended later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Hashes, not rows: a fleet has 100,000 devices.
        self._seen = {(one.kind, one.key): _hash(one.row) for one in _read(path)}
        self._version = 0  # all devices once, then the changed ones
        self._since = datetime.min.replace(tzinfo=UTC)

    def follow(self, conn: psycopg.Connection[Any], *, scan_customers: bool = True) -> int:
        """Append what has changed since the last call; return the number of lines.

        Raises BackupError if the folder is not one of backups.
        """
        now = datetime.now(UTC)
        with translated():
            found = conn.execute(query("newest_credential_version", QUERIES)).fetchone()
            rows = conn.execute(
                query("changed_credentials", QUERIES),
                {
                    "version": self._version,
                    "since": self._since,
                    "scan_customers": scan_customers,
                },
            ).fetchall()
            conn.rollback()
        new = []
        for kind, key, text in rows:
            row = json.loads(text)
            if self._seen.get((kind, key)) != _hash(row):
                new.append(Entry(now, kind, key, row))
        self._append(new)
        self._version = found[0] if found else 0
        self._since = now - OVERLAP
        return len(new)

    def _append(self, entries: list[Entry]) -> None:
        if not entries:
            return
        lines = "".join(
            json.dumps({"at": one.at.isoformat(), "kind": one.kind, "key": one.key, "row": one.row})
            + "\n"
            for one in entries
        )
        with _open_beside_config(self._path) as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self._seen |= {(one.kind, one.key): _hash(one.row) for one in entries}

    def apply(self, conn: psycopg.Connection[Any]) -> Applied:
        """Bring a restored database's credentials forward, as its owner. Commits."""
        applied = Applied()
        by_kind: dict[str, list[dict[str, Any]]] = {}
        newest = {(one.kind, one.key): one.row for one in _read(self._path)}
        for (kind, _), row in newest.items():
            by_kind.setdefault(kind, []).append(row)
        with translated():
            for row in by_kind.get("device", ()):
                changed = conn.execute(query("restore_device", QUERIES), {"row": Jsonb(row)})
                if changed.fetchone() is not None:
                    name = {"id": row["device_id"]}
                    conn.execute(query("end_device", QUERIES), name)
                    conn.execute(query("restore_driver", QUERIES), name)
                    state = "revoked" if row["revoked_at"] else "active"
                    applied.credentials.append(f"{row['kind']} {row['device_id']} ({state})")
            for kind, restore, prefix in (
                ("phone", "restore_phone", "phone of"),
                ("staff", "restore_staff", "staff"),
                ("token", "restore_token", "token of"),
            ):
                for row in by_kind.get(kind, ()):
                    changed = conn.execute(query(restore, QUERIES), {"row": Jsonb(row)})
                    applied.credentials += [f"{prefix} {name}" for (name,) in changed]
            conn.execute(query("end_invitations", QUERIES))
            conn.commit()
        for row in by_kind.get("forgotten", ()):
            _forget_again(conn, row, applied)
        return applied


def end_customer_links(conn: psycopg.Connection[Any]) -> list[str]:
    """End shared links, and those of orders that are out with a driver; return these orders.

    Commits.
    """
    with translated():
        conn.execute(query("end_share_links", QUERIES))
        ended = conn.execute(query("end_customer_links", QUERIES)).fetchall()
        conn.commit()
    return sorted({str(order_id) for (order_id,) in ended})


def _forget_again(conn: psycopg.Connection[Any], row: dict[str, Any], applied: Applied) -> None:
    kind = row["action"].removesuffix(".forget")
    exists = conn.execute(
        query(f"has_{kind}", "queries/personal_data.sql"), {"id": row["id"]}
    ).fetchone()
    conn.rollback()
    if not exists or not exists[0]:
        return
    name = f"{kind} {row['id']}"
    try:
        if kind == "driver":
            forget_driver(conn, row["id"], WHO)
        else:
            forget_order(conn, row["id"], WHO)
    except DoorstepError as exc:
        conn.rollback()
        applied.not_forgotten.append(f"{name}: {exc}")
    else:
        applied.forgotten.append(name)


def _open_beside_config(path: Path) -> TextIO:
    """Open the file for appending. The folder is opened once: a disk may go in between."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise BackupError(f"{path.parent} is missing: {_WAITING}") from None
    try:
        os.stat(CONFIG, dir_fd=folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return open(os.open(path.name, flags, 0o600, dir_fd=folder), "w", encoding="utf-8")
    except FileNotFoundError:
        raise BackupError(f"{path.parent} has no {CONFIG}: {_WAITING}") from None
    finally:
        os.close(folder)


def _hash(row: Mapping[str, Any]) -> int:
    return hash(json.dumps(row, sort_keys=True))


def _read(path: Path) -> Iterator[Entry]:
    """Read the lines; a last line that a crash cut off is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            one = json.loads(line)
            yield Entry(datetime.fromisoformat(one["at"]), one["kind"], one["key"], one["row"])
        except (ValueError, KeyError):
            continue
