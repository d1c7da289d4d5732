"""The traces that one fix has left, part by part: journal, Kafka, database, dead letters."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from device.journal import SeqInBoot, read_seq
from doorstep.errors import DoorstepError, MalformedFix, UnknownDriver
from doorstep.fix import Fix, Refused, decode_position
from doorstep.kafka.topic_reader import OffsetRange, TopicReader, partition_of, place_of
from doorstep.store import fix_writer
from doorstep.store.error_mapping import translated
from doorstep.store.offsets import read_offsets
from doorstep.store.records import Watermark
from ops.commands.dead_letter_reader import StoredDeadLetter
from ops.commands.settings import OperatorSettings
from sql import read_sql

SEARCH_BEFORE_MS = 2_000  # Kafka's index leads to a record near the time asked for
MOST_LETTERS = 100_000  # of a partition


class BadJournal(DoorstepError):
    """A device's journal can't be read."""


@dataclass(frozen=True, slots=True)
class InKafka:
    """One record of driver-pos that carries the fix. `entry` is what its decoding gave."""

    partition: int
    offset: int
    at_ms: int
    entry: Fix | Refused
    is_read: bool


@dataclass(frozen=True, slots=True)
class InHistory:
    """The fix as it is stored."""

    fix_at: datetime
    received_at: datetime
    recorded_at: datetime | None  # None: it is packed, and this is not kept
    lon_deg: float
    lat_deg: float
    quarantine: str | None


@dataclass(frozen=True, slots=True)
class KnownBoot:
    """What the database says of the seq in one boot."""

    boot: str
    is_stored: bool
    is_rejected: bool
    newest_seq: int


@dataclass(slots=True)
class Trace:
    """All that is known of one fix."""

    driver_id: str
    seq: int
    boot: str | None = None
    other_boots: Sequence[str] = ()
    has_journal: bool = False
    journal: SeqInBoot | None = None
    records: list[InKafka] = field(default_factory=list)
    searched: OffsetRange = (0, 0)  # offsets of the driver's partition
    partition: int = -1
    lag: int = 0  # records of that partition that are not read yet
    letters: list[StoredDeadLetter] = field(default_factory=list)
    known: KnownBoot | None = None
    parked_at: datetime | None = None
    history: InHistory | None = None
    watermark: Watermark | None = None
    proved: Sequence[tuple[UUID, int, str]] = ()  # order, assignment, state

    @property
    def is_acknowledged(self) -> bool:
        """Whether the committed watermark covers it."""
        mark = self.watermark
        return (
            mark is not None
            and self.seq <= mark.seq
            and not any(first <= self.seq <= last for first, last in mark.missing)
        )


def follow_fix(
    settings: OperatorSettings,
    conn: psycopg.Connection[Any],
    driver_id: str,
    seq: int,
    boot: str | None,
    most_records: int,
) -> Trace:
    """Gather the traces of one fix. Raises UnknownDriver, KafkaUnavailable, StoreUnavailable."""
    lives = read_lives(settings.journal_dir, driver_id, seq)
    boots = read_boots(conn, driver_id, seq)
    trace = Trace(driver_id, seq)
    trace.has_journal = bool(lives)
    candidates = choose_boots(boots, lives, seq)
    trace.boot = boot or (candidates[0] if candidates else None)
    trace.other_boots = [one for one in candidates if one != trace.boot]
    if trace.boot is not None:
        _read_database(trace, conn, boots)
    with TopicReader(settings.kafka_bootstrap_servers, settings.kafka_topic) as positions:
        _read_positions(trace, conn, positions, most_records)
    if trace.boot is None and trace.records:  # only Kafka knows it so far
        trace.boot = trace.records[0].entry.boot
    trace.journal = next((one for one in lives if one.boot == trace.boot), None)
    with TopicReader(settings.kafka_bootstrap_servers, settings.kafka_dead_letter_topic) as letters:
        trace.letters = _read_letters(trace, letters)
    return trace


def read_lives(folder: Path, driver_id: str, seq: int) -> list[SeqInBoot]:
    """What every journal in a folder says of a driver's seq, the newest boot first."""
    found: list[SeqInBoot] = []
    for path in sorted(folder.glob("*.sqlite")):
        try:
            found += read_seq(path, driver_id, seq)
        except sqlite3.Error as exc:
            raise BadJournal(f"the journal {path} can't be read: {exc}") from exc
    return found


def read_boots(conn: psycopg.Connection[Any], driver_id: str, seq: int) -> list[KnownBoot]:
    """The driver's boots in the database, that of the newest fix first. Raises UnknownDriver."""
    with translated():
        rows = conn.execute(
            read_sql("trace/boots.sql"), {"driver_id": driver_id, "seq": seq}
        ).fetchall()
    if not rows:
        raise UnknownDriver(f"there is no driver {driver_id!r}: ./run drivers lists them")
    return [KnownBoot(*row) for row in rows if row[0] is not None]


def choose_boots(boots: Sequence[KnownBoot], lives: Sequence[SeqInBoot], seq: int) -> list[str]:
    """The boots that may be meant, the likeliest first.

    Those that have this seq, by the database or by a journal, or else the newest that exists.
    """
    having = [one.boot for one in boots if one.is_stored or one.is_rejected]
    having += [one.boot for one in lives if one.last_seq >= seq]
    newest = [one.boot for one in lives[:1]] + [one.boot for one in boots[:1]]
    return list(dict.fromkeys(having or newest[:1]))


def entry_of(payload: bytes, boot: str | None, seq: int) -> Fix | Refused | None:
    """Find a fix in a payload of driver-pos."""
    if str(seq).encode() not in payload:
        return None
    try:
        decoded = decode_position(payload)
    except MalformedFix:
        return None
    for entry in decoded:
        if entry.seq == seq and (boot is None or entry.boot == boot):
            return entry
    return None


def is_about(letter: StoredDeadLetter, boot: str | None, seq: int) -> bool:
    """Whether a dead letter is about this fix, rather than about others of its array."""
    if entry_of(letter.payload, boot, seq) is None:
        return False
    if not letter.payload.lstrip().startswith(b"["):
        return True
    return f"seq {seq}" in letter.headers.get("detail", "").split("; ")


def _read_database(trace: Trace, conn: psycopg.Connection[Any], boots: Sequence[KnownBoot]) -> None:
    assert trace.boot is not None  # noqa: S101 - for mypy; the caller has looked
    trace.known = next((one for one in boots if one.boot == trace.boot), None)
    asked = {"driver_id": trace.driver_id, "boot": trace.boot, "seq": trace.seq}
    with translated():
        row = conn.execute(read_sql("trace/history.sql"), asked).fetchone()
        trace.history = InHistory(*row) if row else None
        parked = conn.execute(read_sql("trace/parked.sql"), asked).fetchone()
        trace.parked_at = parked[0] if parked else None
        if trace.history is not None:
            asked |= {"fix_at": trace.history.fix_at}
            trace.proved = conn.execute(read_sql("trace/evidence.sql"), asked).fetchall()
    marks = fix_writer.read_watermarks(conn, [(trace.driver_id, trace.boot)])
    trace.watermark = marks[0] if marks else None


def _read_positions(
    trace: Trace, conn: psycopg.Connection[Any], positions: TopicReader, most_records: int
) -> None:
    partition = partition_of(trace.driver_id.encode(), len(positions.partitions))
    low, high = positions.bounds()[partition]
    reached = read_offsets(conn, *positions.identify()).get(partition, 0)
    start = max(low, high - most_records)
    if trace.history is not None:
        arrived_ms = round(trace.history.received_at.timestamp() * 1000)
        start = min(start, positions.since(arrived_ms - SEARCH_BEFORE_MS)[partition][0])
    stretch = (start, min(high, start + most_records))
    key = trace.driver_id.encode()
    for message in positions.read({partition: stretch}):
        if message.key() != key:
            continue
        entry = entry_of(message.value() or b"", trace.boot, trace.seq)
        if entry is not None:
            _, offset = place_of(message)
            at_ms = message.timestamp()[1]
            trace.records.append(InKafka(partition, offset, at_ms, entry, offset < reached))
    trace.partition, trace.searched, trace.lag = partition, stretch, max(0, high - reached)


def _read_letters(trace: Trace, letters: TopicReader) -> list[StoredDeadLetter]:
    partition = partition_of(trace.driver_id.encode(), len(letters.partitions))
    low, high = letters.bounds()[partition]
    found = map(
        StoredDeadLetter.of, letters.read({partition: (max(low, high - MOST_LETTERS), high)})
    )
    return [
        letter
        for letter in found
        if letter.driver_id == trace.driver_id and is_about(letter, trace.boot, trace.seq)
    ]
