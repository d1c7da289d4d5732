"""A device's journal on disk: every fix is here before it is published, until it is committed.

One SQLite file per process, keyed by driver, not one per device: a process with 200 couriers then
makes all fixes of a moment durable with one fsync instead of 200. Write-ahead logging with
`synchronous = FULL`, so that neither kill -9 nor a power cut forgets a `seq` that was published:
used a second time it would be a conflict. A file lock keeps a second process out.

    life    one row per (driver, boot): the highest seq ever used. It stays, for the ledger
    fix     what the committed watermark has not passed yet
    voided  seqs closed as void
    note    small texts of the owner that must survive with the journal
"""

from __future__ import annotations

import fcntl
import re
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Self

from doorstep.errors import DoorstepError

BUSY_TIMEOUT_S = 10.0  # a reader such as the ledger holds the file for milliseconds


class JournalInUse(DoorstepError):
    """Another process writes this journal."""


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a driver's journal. `last_seq` is the highest used when it was opened."""

    life_id: int
    driver_id: str
    boot: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class PublishedLife:
    """What the ledger asks of one (driver, boot): seqs 1 to `last_seq` were published.

    `pending` of them still wait for the watermark, and `voids` were closed without their fix.
    """

    driver_id: str
    boot: str
    last_seq: int
    pending: int
    voids: int


class Journal:
    """The journal of one process's devices. Not thread-safe.

    Changes take effect for the reader at once and are durable after `commit()`.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the journal. Raises JournalInUse."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_suffix(".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise JournalInUse(f"another process writes the journal {path}") from None
        self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_sql()["create_tables"])

    def open_life(self, driver_id: str) -> Life:
        """Go on with the driver's newest boot, or begin the first."""
        row = self._db.execute(_sql()["newest_life"], (driver_id,)).fetchone()
        return Life(*row) if row else self.begin_life(driver_id)

    def begin_life(self, driver_id: str) -> Life:
        """Begin a new boot. Its name is random: no two journals ever share one."""
        cursor = self._db.execute(_sql()["add_life"], (driver_id, secrets.token_hex(6)))
        self._db.commit()
        return Life(*cursor.execute(_sql()["newest_life"], (driver_id,)).fetchone())

    def append(self, fixes: Sequence[tuple[int, int, bytes]]) -> None:
        """Add (life_id, seq, payload) rows; the seqs of a life must come in order."""
        self._db.executemany(_sql()["add_fix"], fixes)
        newest = {life_id: seq for life_id, seq, _ in fixes}
        self._db.executemany(
            _sql()["advance_life"], ((seq, life_id) for life_id, seq in newest.items())
        )

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
        return int(self._db.execute(_sql()["count_pending"], (life_id,)).fetchone()[0])

    def forget(self, life_id: int, ranges: Iterable[tuple[int, int]]) -> None:
        """Drop fixes that are committed, by inclusive ranges of seq."""
        self._db.executemany(
            _sql()["forget_between"], ((life_id, first, last) for first, last in ranges)
        )

    def add_void(self, life_id: int, seq: int) -> None:
        """Remember that this seq was closed as void."""
        self._db.execute(_sql()["add_void"], (life_id, seq))

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


def read_published(path: Path) -> list[PublishedLife]:
    """Read what a journal has published, also while its process runs or after it was killed."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as db:
        if db.execute(_sql()["has_tables"]).fetchone()[0] < 3:
            return []  # its process has only just begun
        return [PublishedLife(*row) for row in db.execute(_sql()["published_lives"])]


@cache
def _sql() -> dict[str, str]:
    text = files("doorstep").joinpath("journal.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- (\w+) --$", text, flags=re.MULTILINE)[1:]
    return {name: block.strip() for name, block in zip(parts[::2], parts[1::2], strict=True)}
