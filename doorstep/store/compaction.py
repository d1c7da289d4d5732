"""Packing the history's sealed days into chunks, and deleting what is past its time.

    seal -> pack, some drivers at a time -> switch -> drop the day's partition -> expire

`./run compact` and driver_events both do it, one of them at a time. Every step is safe to be
killed in and to be done again: sql/schema/46_history_compaction.sql says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from doorstep.errors import DoorstepError
from doorstep.kafka.topic_reader import TopicReader
from doorstep.store.error_mapping import translated
from doorstep.store.offsets import read_offsets
from sql import query

FILE = "compaction.sql"
DRIVERS_AT_ONCE = 20  # of up to 21,600 fixes each (a day at one every 4 s): 3 s, then a commit
CHUNKS_AT_ONCE = 20_000
QUIET_WITHIN_S = 60.0  # idle_in_transaction_session_timeout (5 s) ends a writer that has stopped
DROP_TRIES = 20
TRY_AGAIN_S = 0.5

Values = dict[str, Any]


class CompactionLocked(DoorstepError):
    """Another compaction is under way."""


class ChunkMismatch(DoorstepError):
    """A chunk is not what it packs; its day stays as it is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: `before` is as far as the history may be sealed, `held_by` says why."""

    sealed_before: datetime | None
    packed_before: datetime | None
    before: datetime
    held_by: str  # age, unread, parked, order <id>
    days: list[date]  # sealed or to be sealed, and not packed
    history_days: int


@dataclass(slots=True)
class Compacted:
    """What was done."""

    days: int = 0
    fixes: int = 0
    chunks: int = 0
    still_there: int = 0  # partitions that somebody reads; the next run drops them
    expired: int = 0  # fixes past their time


def oldest_unread(
    conn: psycopg.Connection[Any], bootstrap_servers: str, topic: str
) -> datetime | None:
    """When the oldest record of the topic arrived that is not recorded yet. Raises KafkaAway."""
    with TopicReader(bootstrap_servers, topic) as reader:
        reached = read_offsets(conn, *reader.identify())
        unread = {
            partition: (max(low, reached.get(partition, 0)), high)
            for partition, (low, high) in reader.bounds().items()
        }
        firsts = {one: (start, start + 1) for one, (start, end) in unread.items() if start < end}
        arrived_ms = [message.timestamp()[1] for message in reader.read(firsts)]
    return datetime.fromtimestamp(min(arrived_ms) / 1000, UTC) if arrived_ms else None


class Compactor:
    """One session with the database, as its owner or as driver_events."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        """Take the turn, which ends with the session. Raises CompactionLocked."""
        self.conn = conn
        conn.autocommit = True
        self._rows("set_timeout")
        if not self._row("try_lock")["is_locked"]:
            raise CompactionLocked("another compaction is under way, perhaps driver_events' own")

    def plan(self, unread_since: datetime | None) -> Plan:
        """Look at what is to be done. Writes nothing."""
        standing, most = (
            self._row("read_bounds"),
            self._row("seal_limit", unread_since=unread_since),
        )
        before = max(most["before"], standing["sealed_before"] or most["before"])
        days = [row["day"] for row in self._rows("unpacked_days", before=before)]
        return Plan(**standing, before=before, held_by=most["reason"], days=days)

    def count(self, day: date) -> int:
        """How many fixes a day has."""
        return int(self._row("count_day", day=day)["fixes"])

    def count_past(self, days: int) -> int:
        """How many packed fixes are older than so many days."""
        return int(self._row("count_expired", days=days)["fixes"])

    def keep_days(self, days: int) -> None:
        """Set how long the history is kept."""
        self._rows("set_history_days", days=days)

    def size(self) -> tuple[int, int, int]:
        """How much is packed: fixes, chunks, bytes with indexes."""
        row = self._row("size")
        return row["fixes"], row["chunks"], row["bytes"]

    def run(
        self,
        plan: Plan,
        say: Callable[[str], None] = lambda _line: None,
        rest: Callable[[float], bool] = lambda _worked_s: True,
    ) -> Compacted:
        """Do it. `rest` is called between slices with the length of the last, s; False: stop."""
        done = Compacted()
        if plan.days:
            self._seal(plan.before)
        for day in plan.days:
            if not self._pack(day, done, say, rest):
                return done
        done.still_there = self._drop()
        while expired := int(self._row("expire", at_most=CHUNKS_AT_ONCE)["fixes"]):
            done.expired += expired
        return done

    def _seal(self, before: datetime) -> None:
        """Let nobody store a fix of before any more, and wait for those who are about to."""
        since = self._row("seal", before=before)["since"]
        deadline = time.monotonic() + QUIET_WITHIN_S
        while not self._row("writers_finished", since=since)["are_finished"]:
            if time.monotonic() > deadline:
                raise CompactionLocked(
                    f"a transaction has been writing for more than {QUIET_WITHIN_S:.0f} s"
                )
            time.sleep(TRY_AGAIN_S / 10)

    def _pack(
        self, day: date, done: Compacted, say: Callable[[str], None], rest: Callable[[float], bool]
    ) -> bool:
        """Pack a day and let readers have it from its chunks; False if it was stopped."""
        after, fixes = None, 0
        began = time.monotonic()
        while rows := self._rows("pack", day=day, after=after, at_most=DRIVERS_AT_ONCE):
            [row] = rows
            after = row["last_driver_id"]
            fixes += row["fixes"]
            done.chunks += row["chunks"]
            say(f"{day}: {fixes:,} fixes packed, up to {after}")
            ended = time.monotonic()
            if not rest(ended - began):
                return False
            began = time.monotonic()
        done.fixes += int(self._row("switch", day=day)["fixes"])
        done.days += 1
        return True

    def _drop(self) -> int:
        """Drop the partitions that are packed; returns how many are left."""
        for _ in range(DROP_TRIES):
            still_there = int(self._row("drop_packed")["partitions_left"])
            if not still_there:
                break
            time.sleep(TRY_AGAIN_S)
        return still_there

    def _row(self, name: str, **asked: object) -> Values:
        [row] = self._rows(name, **asked)
        return row

    def _rows(self, name: str, **asked: object) -> list[Values]:
        with _named(), self.conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(query(name, FILE), asked)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def _named() -> Iterator[None]:
    try:
        with translated():
            yield
    except psycopg.Error as exc:
        if exc.sqlstate == "DS014":
            raise ChunkMismatch(exc.diag.message_primary) from exc
        raise
