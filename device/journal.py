"""A device's journal: each fix is on disk from before its publication until it is committed.

One SQLite file per process, not per device: a process with 200 couriers makes all their fixes
durable with one fsync. Write-ahead logging with `synchronous = FULL`: neither kill -9 nor a power
cut may lose a `seq` that was published, because using it again would be a conflict. A file lock
excludes a second process.

    life       one row per (driver, boot): the highest seq ever used. Kept forever, for the ledger
    fix        fixes that the committed watermark does not cover, `max_fixes` of a boot at most
    void_span  seqs that were given up and closed as void, as inclusive spans
    note       small texts that must survive with the journal

A full journal gives up its oldest fixes, and counts them. A file that SQLite cannot read is
renamed, and a new journal with new boots begins.
"""

from __future__ import annotations

import fcntl
import re
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Self

from doorstep.errors import DoorstepError
from doorstep.telemetry import get_logger

BUSY_TIMEOUT_S = 10.0  # readers such as the ledger lock the file for milliseconds
MAX_FIXES = 25_000  # of a boot: 27 h at one fix in 4 s; the platform refuses fixes older than 24 h
UNREADABLE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class JournalInUse(DoorstepError):
    """Another process uses this journal."""


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot of a driver's journal. `last_seq` is the highest seq used when it was opened."""

    boot_id: int
    driver_id: str
    boot: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class PublishedBoot:
    """What a (driver, boot) has published: the seqs 1 to `last_seq`.

    The watermark does not cover `pending` of them; `voids` were closed without their fix.
    """

    driver_id: str
    boot: str
    last_seq: int
    pending: int
    voids: int


@dataclass(frozen=True, slots=True)
class SeqInBoot:
    """The state of a seq in one boot: pending, void, or else committed (up to `last_seq`)."""

    boot: str
    last_seq: int
    is_pending: bool
    is_voided: bool


class Journal:
    """The journal of one process's devices. Not thread-safe.

    Changes are visible to this object at once, and durable after `commit()`.
    """

    def __init__(self, path: Path, max_fixes: int = MAX_FIXES) -> None:
        """Open or create the journal. It keeps `max_fixes` of each boot. Raises JournalInUse."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_suffix(".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise JournalInUse(f"another process uses the journal {path}") from None
        self._max_fixes = max_fixes
        self._db = _open_or_replace(path)
        self._pending: Counter[int] = Counter(
            dict(self._db.execute(_sql()["count_pending"]).fetchall())
        )

    def open_boot(self, driver_id: str) -> Boot:
        """Return the driver's newest boot; begin one if there is none."""
        row = self._db.execute(_sql()["newest_boot"], (driver_id,)).fetchone()
        if row is None:
            boot = self.begin_boot(driver_id)
            self._db.commit()
            return boot
        return Boot(*row)

    def begin_boot(self, driver_id: str) -> Boot:
        """Begin a new boot; durable with the next commit.

        Its name is random, so that no two journals share one.
        """
        cursor = self._db.execute(_sql()["add_boot"], (driver_id, secrets.token_hex(6)))
        return Boot(*cursor.execute(_sql()["newest_boot"], (driver_id,)).fetchone())

    def append(self, fixes: Sequence[tuple[int, int, bytes]]) -> dict[int, int]:
        """Add rows of (boot_id, seq, payload), in the order of the seqs of each boot.

        Returns the number of fixes that a full journal gave up for them, by boot.
        """
        self._db.executemany(_sql()["add_fix"], fixes)
        newest = {boot_id: seq for boot_id, seq, _ in fixes}
        self._db.executemany(
            _sql()["advance_boot"], ((seq, boot_id) for boot_id, seq in newest.items())
        )
        self._pending.update(boot_id for boot_id, _, _ in fixes)
        given_up = {boot_id: self._pending[boot_id] - self._max_fixes for boot_id in newest}
        for boot_id, count in given_up.items():
            for seq, _ in self.pending_after(boot_id, 0, max(0, count)):
                self.give_up(boot_id, seq)
        return {boot_id: count for boot_id, count in given_up.items() if count > 0}

    def commit(self) -> None:
        """Make all changes durable."""
        self._db.commit()

    def pending_after(self, boot_id: int, seq: int, limit: int) -> list[tuple[int, bytes]]:
        """Return the next pending fixes above `seq`, in order."""
        return self._db.execute(_sql()["pending_after"], (boot_id, seq, limit)).fetchall()

    def pending_between(
        self, boot_id: int, first: int, last: int, limit: int
    ) -> list[tuple[int, bytes]]:
        """Return the pending fixes from `first` to `last`, in order."""
        row = (boot_id, first, last, limit)
        return self._db.execute(_sql()["pending_between"], row).fetchall()

    def last_pending(self, boot_id: int, up_to: int) -> list[tuple[int, bytes]]:
        """Return the newest pending fix up to a seq, if there is one."""
        return self._db.execute(_sql()["last_pending"], (boot_id, up_to)).fetchall()

    def count_pending(self, boot_id: int) -> int:
        """Count the fixes that the watermark does not cover."""
        return self._pending[boot_id]

    def delete(self, boot_id: int, spans: Iterable[tuple[int, int]]) -> None:
        """Delete committed fixes, by inclusive spans of seqs."""
        cursor = self._db.executemany(
            _sql()["delete_between"], ((boot_id, first, last) for first, last in spans)
        )
        self._pending[boot_id] -= max(0, cursor.rowcount)

    def give_up(self, boot_id: int, seq: int) -> None:
        """Delete a fix that is not committed, and mark its seq as void."""
        self.delete(boot_id, [(seq, seq)])
        if self.is_given_up(boot_id, seq):
            return
        if self._db.execute(_sql()["extend_void"], (boot_id, seq - 1)).rowcount == 0:
            self._db.execute(_sql()["add_void"], (boot_id, seq, seq))

    def is_given_up(self, boot_id: int, seq: int) -> bool:
        """Return whether a seq was given up."""
        return self._db.execute(_sql()["has_void"], (boot_id, seq, seq)).fetchone() is not None

    def count_given_up(self, boot_id: int) -> int:
        """Count the seqs of a boot that were given up."""
        return int(self._db.execute(_sql()["count_voids"], (boot_id,)).fetchone()[0])

    def set_note(self, name: str, value: str) -> None:
        """Store a small text; durable with the next commit."""
        self._db.execute(_sql()["set_note"], (name, value))

    def notes(self) -> dict[str, str]:
        """Return all notes by name."""
        return dict(self._db.execute(_sql()["all_notes"]).fetchall())

    def close(self) -> None:
        """Commit and release the file."""
        self._db.commit()
        self._db.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_published(path: Path) -> list[PublishedBoot]:
    """Read what a journal has published. Its process may be running, or killed."""
    with _reading(path) as db:
        return [PublishedBoot(*row) for row in db.execute(_sql()["published_boots"])] if db else []


def read_seq(path: Path, driver_id: str, seq: int) -> list[SeqInBoot]:
    """Look a driver's seq up in each boot of a journal, newest first."""
    parameters = {"driver_id": driver_id, "seq": seq}
    with _reading(path) as db:
        rows = db.execute(_sql()["seq_in_boots"], parameters).fetchall() if db else []
    return [SeqInBoot(boot, last, bool(waits), bool(void)) for boot, last, waits, void in rows]


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Open a journal for reading; None if its tables do not exist yet."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as db:
        yield db if db.execute(_sql()["has_tables"]).fetchone()[0] >= 3 else None


def _open_or_replace(path: Path) -> sqlite3.Connection:
    try:
        return _open(path)
    except sqlite3.DatabaseError as exc:
        if exc.sqlite_errorcode & 0xFF not in UNREADABLE:  # the low byte is the kind
            raise
        renamed = path.with_name(f"{path.name}.unreadable-{time.time_ns()}")
        path.rename(renamed)
        for suffix in ("-wal", "-shm"):  # they belong to the old file
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(renamed.with_name(renamed.name + suffix))
        get_logger().error("journal_unreadable", renamed_to=str(renamed), error=str(exc))
        return _open(path)


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_sql()["create_tables"])
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except BaseException:
        db.close()
        raise
    if found != "ok":
        db.close()
        damage = sqlite3.DatabaseError(found)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage
    return db


@cache
def _sql() -> dict[str, str]:
    text = files("device").joinpath("journal.sql").read_text(encoding="utf-8")
    blocks = re.split(r"^-- (\w+) --$", text, flags=re.MULTILINE)[1:]
    return {name: block.strip() for name, block in zip(blocks[::2], blocks[1::2], strict=True)}
