"""A device's journal on disk: every fix is here before it is published, until it is committed.

One SQLite file per process, keyed by driver, not one per device: a process with 200 couriers then
makes all fixes of a moment durable with one fsync instead of 200. Write-ahead logging with
`synchronous = FULL`, so that neither kill -9 nor a power cut forgets a `seq` that was published:
used a second time it would be a conflict. A file lock keeps a second process out.

    life       one row per (driver, boot): the highest seq ever used. It stays, for the ledger
    fix        what the committed watermark has not passed yet; `max_fixes` of a life at most
    void_span  seqs given up, closed as void, as inclusive spans
    note       small texts of the owner that must survive with the journal

A full journal gives up its oldest fixes for the newest, and says so. A file that SQLite can't read
is set aside and a new one begun, whose boots are new.
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

BUSY_TIMEOUT_S = 10.0  # a reader such as the ledger holds the file for milliseconds
MAX_FIXES = 25_000  # of a driver: 27 h at one fix in 4 s, and past 24 h the platform refuses them
UNREADABLE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class JournalInUse(DoorstepError):
    """Another process writes this journal."""


@dataclass(frozen=True, slots=True)
class Boot:
    """One life of a driver's journal. `last_seq` is the highest used when it was opened."""

    life_id: int
    driver_id: str
    boot: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class PublishedBoot:
    """What the ledger asks of one (driver, boot): seqs 1 to `last_seq` were published.

    `pending` of them still wait for the watermark, and `voids` were closed without their fix.
    """

    driver_id: str
    boot: str
    last_seq: int
    pending: int
    voids: int


@dataclass(frozen=True, slots=True)
class SeqInBoot:
    """What one life says of a seq: it may wait for the watermark, or be closed as void."""

    boot: str
    last_seq: int
    is_pending: bool
    is_voided: bool


class Journal:
    """The journal of one process's devices. Not thread-safe.

    Changes take effect for the reader at once and are durable after `commit()`.
    """

    def __init__(self, path: Path, max_fixes: int = MAX_FIXES) -> None:
        """Open or create the journal; `max_fixes` of each life are kept. Raises JournalInUse."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_suffix(".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise JournalInUse(f"another process writes the journal {path}") from None
        self._max_fixes = max_fixes
        self._db = _open_or_begin_anew(path)
        self._pending: Counter[int] = Counter(
            dict(self._db.execute(_sql()["pending_of_lives"]).fetchall())
        )

    def open_boot(self, driver_id: str) -> Boot:
        """Go on with the driver's newest boot, or begin the first."""
        row = self._db.execute(_sql()["newest_life"], (driver_id,)).fetchone()
        if row is None:
            life = self.begin_boot(driver_id)
            self._db.commit()
            return life
        return Boot(*row)

    def begin_boot(self, driver_id: str) -> Boot:
        """Begin a new boot; durable with the next commit.

        Its name is random: no two journals ever share one.
        """
        cursor = self._db.execute(_sql()["add_life"], (driver_id, secrets.token_hex(6)))
        return Boot(*cursor.execute(_sql()["newest_life"], (driver_id,)).fetchone())

    def append(self, fixes: Sequence[tuple[int, int, bytes]]) -> dict[int, int]:
        """Add (life_id, seq, payload) rows; the seqs of a life must come in order.

        Returns how many of the oldest fixes a full journal gave up for them, by life.
        """
        self._db.executemany(_sql()["add_fix"], fixes)
        newest = {life_id: seq for life_id, seq, _ in fixes}
        self._db.executemany(
            _sql()["advance_life"], ((seq, life_id) for life_id, seq in newest.items())
        )
        self._pending.update(life_id for life_id, _, _ in fixes)
        given_up = {life_id: self._pending[life_id] - self._max_fixes for life_id in newest}
        for life_id, count in given_up.items():
            for seq, _ in self.pending_after(life_id, 0, max(0, count)):
                self.give_up(life_id, seq)
        return {life_id: count for life_id, count in given_up.items() if count > 0}

    def commit(self) -> None:
        """Make everything so far durable."""
        self._db.commit()

    def pending_after(self, life_id: int, seq: int, limit: int) -> list[tuple[int, bytes]]:
        """The next pending fixes above `seq`, in order."""
        return self._db.execute(_sql()["pending_after"], (life_id, seq, limit)).fetchall()

    def pending_between(
        self, life_id: int, first: int, last: int, limit: int
    ) -> list[tuple[int, bytes]]:
        """The pending fixes from `first` to `last`, in order."""
        row = (life_id, first, last, limit)
        return self._db.execute(_sql()["pending_between"], row).fetchall()

    def count_pending(self, life_id: int) -> int:
        """How many fixes wait for the watermark."""
        return self._pending[life_id]

    def forget(self, life_id: int, ranges: Iterable[tuple[int, int]]) -> None:
        """Drop fixes that are committed, by inclusive ranges of seq."""
        cursor = self._db.executemany(
            _sql()["forget_between"], ((life_id, first, last) for first, last in ranges)
        )
        self._pending[life_id] -= max(0, cursor.rowcount)

    def give_up(self, life_id: int, seq: int) -> None:
        """Drop a fix that is not committed, and remember that its seq is to be closed as void."""
        self.forget(life_id, [(seq, seq)])
        if self.is_given_up(life_id, seq):
            return
        if self._db.execute(_sql()["extend_void"], (life_id, seq - 1)).rowcount == 0:
            self._db.execute(_sql()["add_void"], (life_id, seq, seq))

    def is_given_up(self, life_id: int, seq: int) -> bool:
        """Whether a seq was given up."""
        return self._db.execute(_sql()["has_void"], (life_id, seq, seq)).fetchone() is not None

    def count_given_up(self, life_id: int) -> int:
        """How many seqs of a life were given up."""
        return int(self._db.execute(_sql()["count_voids"], (life_id,)).fetchone()[0])

    def set_note(self, name: str, value: str) -> None:
        """Keep a small text beside the fixes; durable with the next commit."""
        self._db.execute(_sql()["set_note"], (name, value))

    def notes(self) -> dict[str, str]:
        """All notes by name."""
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
    """Read what a journal has published, also while its process runs or after it was killed."""
    with _reading(path) as db:
        return [PublishedBoot(*row) for row in db.execute(_sql()["published_lives"])] if db else []


def read_seq(path: Path, driver_id: str, seq: int) -> list[SeqInBoot]:
    """Read what each life of a driver in a journal says of a seq, the newest life first."""
    asked = {"driver_id": driver_id, "seq": seq}
    with _reading(path) as db:
        rows = db.execute(_sql()["seq_in_lives"], asked).fetchall() if db else []
    return [SeqInBoot(boot, last, bool(waits), bool(void)) for boot, last, waits, void in rows]


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Open a journal for reading; None if its process has only just begun."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as db:
        yield db if db.execute(_sql()["has_tables"]).fetchone()[0] >= 3 else None


def _open_or_begin_anew(path: Path) -> sqlite3.Connection:
    try:
        return _open(path)
    except sqlite3.DatabaseError as exc:
        if exc.sqlite_errorcode & 0xFF not in UNREADABLE:  # the low byte is the kind
            raise
        aside = path.with_name(f"{path.name}.unreadable-{time.time_ns()}")
        path.rename(aside)
        for suffix in ("-wal", "-shm"):  # they belong to the old file
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
        get_logger().error("journal_unreadable", set_aside=str(aside), error=str(exc))
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
    parts = re.split(r"^-- (\w+) --$", text, flags=re.MULTILINE)[1:]
    return {name: block.strip() for name, block in zip(parts[::2], parts[1::2], strict=True)}
