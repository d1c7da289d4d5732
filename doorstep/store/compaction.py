"""Packs the history's sealed days into chunks and deletes expired ones.

    seal -> pack, some drivers at a time -> switch -> drop the day's partition -> forget boots
         -> expire

`./run compact` and driver_events both run it, one at a time. Every step may be interrupted and
repeated: see sql/schema/46_history_compaction.sql.
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
from doorstep.kafka.access import KafkaAccess
from doorstep.kafka.topic_reader import TopicReader
from doorstep.store.error_mapping import translated
from doorstep.store.offsets import read_offsets
from sql import query

FILE = "compaction.sql"
DRIVERS_PER_COMMIT = 20  # of up to 21,600 fixes each (a day at one per 4 s): 3 s
CHUNKS_PER_COMMIT = 20_000
BOOTS_PER_COMMIT = 5_000  # looked at: their drivers are locked for less than 0.1 s
LOCK_WAIT_S = 1.0  # the server ends a session some milliseconds after its client has closed it
LOCK_POLL_S = 0.02
WRITERS_TIMEOUT_S = 60.0  # idle_in_transaction_session_timeout (5 s) ends a stopped writer
DROP_TRIES = 20
RETRY_S = 0.5

Values = dict[str, Any]


class CompactionLocked(DoorstepError):
    """Another compaction is running."""


class ChunkMismatch(DoorstepError):
    """A chunk differs from the fixes that it packs; the day stays unpacked."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The work to do. `held_by` is the reason why the history is not sealed past `before`."""

    sealed_before: datetime | None
    packed_before: datetime | None
    before: datetime
    held_by: str  # age, unread, parked, order <id>
    days: list[date]  # to be packed
    history_days: int


@dataclass(slots=True)
class Compacted:
    """The work done."""

    days: int = 0
    fixes: int = 0
    chunks: int = 0
    still_there: int = 0  # partitions still being read; the next run drops them
    expired: int = 0  # fixes past the retention
    dropped_boots: int = 0  # boots of which every fix is sealed


def oldest_unread_at(
    conn: psycopg.Connection[Any], kafka: KafkaAccess, topic: str
) -> datetime | None:
    """Return the arrival of the topic's oldest unrecorded record. Raises KafkaUnavailable."""
    with TopicReader(kafka, topic) as reader:
        reached = read_offsets(conn, *reader.identify())
        unread = {
            partition: (max(low, reached.get(partition, 0)), high)
            for partition, (low, high) in reader.bounds().items()
        }
        firsts = {one: (start, start + 1) for one, (start, end) in unread.items() if start < end}
        arrived_ms = [message.timestamp()[1] for message in reader.read(firsts)]
    return datetime.fromtimestamp(min(arrived_ms) / 1000, UTC) if arrived_ms else None


class Compactor:
    """A compaction session, as the database's owner or as driver_events."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        """Take the lock, which is held until the session ends. Raises CompactionLocked."""
        self.conn = conn
        conn.autocommit = True
        self._rows("set_timeout")
        waited_until = time.monotonic() + LOCK_WAIT_S
        while not self._row("try_lock")["is_locked"]:
            if time.monotonic() > waited_until:
                raise CompactionLocked("another compaction is running, perhaps in driver_events")
            time.sleep(LOCK_POLL_S)

    def plan(self, unread_since: datetime | None) -> Plan:
        """Plan the work. Writes nothing."""
        standing, most = (
            self._row("read_bounds"),
            self._row("seal_limit", unread_since=unread_since),
        )
        before = max(most["before"], standing["sealed_before"] or most["before"])
        days = [row["day"] for row in self._rows("unpacked_days", before=before)]
        return Plan(**standing, before=before, held_by=most["reason"], days=days)

    def count(self, day: date) -> int:
        """Return the number of fixes of a day."""
        return int(self._row("count_day", day=day)["fixes"])

    def count_expired(self, days: int) -> int:
        """Return the number of packed fixes older than `days`."""
        return int(self._row("count_expired", days=days)["fixes"])

    def set_retention(self, days: int) -> None:
        """Set the history's retention."""
        self._rows("set_history_days", days=days)

    def size(self) -> tuple[int, int, int]:
        """Return the packed fixes, chunks and bytes with indexes."""
        row = self._row("size")
        return row["fixes"], row["chunks"], row["bytes"]

    def run(
        self,
        plan: Plan,
        say: Callable[[str], None] = lambda _line: None,
        rest: Callable[[float], bool] = lambda _worked_s: True,
    ) -> Compacted:
        """Execute a plan. `rest(duration_s)` is called between commits; False stops."""
        done = Compacted()
        if plan.days:
            self._seal(plan.before)
        for day in plan.days:
            if not self._pack(day, done, say, rest):
                return done
        done.still_there = self._drop()
        if plan.days and not self._drop_boots(done, rest):
            return done
        while expired := int(self._row("expire", at_most=CHUNKS_PER_COMMIT)["fixes"]):
            done.expired += expired
        return done

    def _seal(self, before: datetime) -> None:
        """Refuse new fixes before an instant, and wait for the transactions that write some."""
        since = self._row("seal", before=before)["since"]
        deadline = time.monotonic() + WRITERS_TIMEOUT_S
        while not self._row("writers_finished", since=since)["are_finished"]:
            if time.monotonic() > deadline:
                raise CompactionLocked(
                    f"a transaction has been writing for more than {WRITERS_TIMEOUT_S:.0f} s"
                )
            time.sleep(RETRY_S / 10)

    def _pack(
        self, day: date, done: Compacted, say: Callable[[str], None], rest: Callable[[float], bool]
    ) -> bool:
        """Pack a day and switch readers to its chunks; False if stopped."""
        after, fixes = None, 0
        began = time.monotonic()
        while rows := self._rows("pack", day=day, after=after, at_most=DRIVERS_PER_COMMIT):
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
        """Drop the partitions of packed days; return how many are left."""
        for _ in range(DROP_TRIES):
            still_there = int(self._row("drop_packed")["partitions_left"])
            if not still_there:
                break
            time.sleep(RETRY_S)
        return still_there

    def _drop_boots(self, done: Compacted, rest: Callable[[float], bool]) -> bool:
        """Drop the boots of which every fix is sealed; False if stopped."""
        last = {"after_driver": "", "after_boot": ""}
        began = time.monotonic()
        while rows := self._rows("drop_boots", **last, at_most=BOOTS_PER_COMMIT):
            [row] = rows
            last = {"after_driver": row["last_driver_id"], "after_boot": row["last_boot"]}
            done.dropped_boots += row["boots"]
            ended = time.monotonic()
            if not rest(ended - began):
                return False
            began = time.monotonic()
        return True

    def _row(self, name: str, **parameters: object) -> Values:
        [row] = self._rows(name, **parameters)
        return row

    def _rows(self, name: str, **parameters: object) -> list[Values]:
        with _mapped_errors(), self.conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(query(name, FILE), parameters)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def _mapped_errors() -> Iterator[None]:
    try:
        with translated():
            yield
    except psycopg.Error as exc:
        if exc.sqlstate == "DS014":
            raise ChunkMismatch(exc.diag.message_primary) from exc
        raise
