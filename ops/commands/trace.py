"""Traces one fix through the journal, Kafka, the database and the dead letters."""

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
from doorstep.kafka.topic_reader import OffsetRange, TopicReader, partition_and_offset, partition_of
from doorstep.store import fix_writer
from doorstep.store.error_mapping import translated
from doorstep.store.offsets import read_offsets
from doorstep.store.records import Watermark
from doorstep.traces.identity import Sampler
from ops.commands.dead_letter_reader import StoredDeadLetter
from ops.commands.settings import OperatorSettings
from sql import read_sql

SEARCH_BEFORE_MS = 2_000  # Kafka's time index is sparse
MAX_DEAD_LETTERS = 100_000  # searched, per partition


class BadJournal(DoorstepError):
    """A device's journal cannot be read."""


@dataclass(frozen=True, slots=True)
class InKafka:
    """A record of driver-pos that contains the fix, decoded as `entry`."""

    partition: int
    offset: int
    at_ms: int
    entry: Fix | Refused
    is_consumed: bool  # by driver_events


@dataclass(frozen=True, slots=True)
class InHistory:
    """The stored fix."""

    fix_at: datetime
    received_at: datetime
    recorded_at: datetime | None  # None if packed: not kept then
    lon_deg: float
    lat_deg: float
    quarantine: str | None


@dataclass(frozen=True, slots=True)
class KnownBoot:
    """The seq in the database's account of one boot."""

    boot: str
    is_stored: bool
    is_rejected: bool
    newest_seq: int


@dataclass(slots=True)
class Trace:
    """Everything found about one fix."""

    driver_id: str
    seq: int
    boot: str | None = None
    other_boots: Sequence[str] = ()
    has_journal: bool = False
    journal: SeqInBoot | None = None
    records: list[InKafka] = field(default_factory=list)
    searched: OffsetRange = (0, 0)  # in the driver's partition
    partition: int = -1
    lag: int = 0  # records of that partition that driver_events has not consumed
    letters: list[StoredDeadLetter] = field(default_factory=list)
    known: KnownBoot | None = None
    parked_at: datetime | None = None
    history: InHistory | None = None
    watermark: Watermark | None = None
    trace_id: str | None = None  # of its OpenTelemetry trace, if it is sampled
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
    max_records: int,
) -> Trace:
    """Trace one fix. Raises UnknownDriver, KafkaUnavailable, StoreUnavailable."""
    journals = read_journals(settings.journal_dir, driver_id, seq)
    boots = read_boots(conn, driver_id, seq)
    trace = Trace(driver_id, seq)
    trace.has_journal = bool(journals)
    candidates = choose_boots(boots, journals, seq)
    trace.boot = boot or (candidates[0] if candidates else None)
    trace.other_boots = [one for one in candidates if one != trace.boot]
    if trace.boot is not None:
        _read_database(trace, conn, boots)
    with TopicReader(settings.kafka, settings.kafka_topic) as positions:
        _read_positions(trace, conn, positions, max_records)
    if trace.boot is None and trace.records:  # only in Kafka so far
        trace.boot = trace.records[0].entry.boot
    trace.journal = next((one for one in journals if one.boot == trace.boot), None)
    with TopicReader(settings.kafka, settings.kafka_dead_letter_topic) as letters:
        trace.letters = _read_letters(trace, letters)
    if settings.has_traces:
        sampled = Sampler(settings.traces_share).traced(driver_id, trace.boot, seq)
        trace.trace_id = sampled.trace_id_hex if sampled else None
    return trace


def read_journals(folder: Path, driver_id: str, seq: int) -> list[SeqInBoot]:
    """Look a driver's seq up in every journal of a folder, newest boot first."""
    found: list[SeqInBoot] = []
    for path in sorted(folder.glob("*.sqlite")):
        try:
            found += read_seq(path, driver_id, seq)
        except sqlite3.Error as exc:
            raise BadJournal(f"cannot read the journal {path}: {exc}") from exc
    return found


def read_boots(conn: psycopg.Connection[Any], driver_id: str, seq: int) -> list[KnownBoot]:
    """Read the driver's boots, that of the newest fix first. Raises UnknownDriver."""
    with translated():
        rows = conn.execute(
            read_sql("trace/boots.sql"), {"driver_id": driver_id, "seq": seq}
        ).fetchall()
    if not rows:
        raise UnknownDriver(f"no driver is named {driver_id!r}: ./run drivers lists them")
    return [KnownBoot(*row) for row in rows if row[0] is not None]


def choose_boots(boots: Sequence[KnownBoot], journals: Sequence[SeqInBoot], seq: int) -> list[str]:
    """Return the boots that the fix may belong to, the likeliest first.

    Boots with this seq in the database or a journal, or else the newest boot.
    """
    with_seq = [one.boot for one in boots if one.is_stored or one.is_rejected]
    with_seq += [one.boot for one in journals if one.last_seq >= seq]
    newest = [one.boot for one in journals[:1]] + [one.boot for one in boots[:1]]
    return list(dict.fromkeys(with_seq or newest[:1]))


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


def concerns(letter: StoredDeadLetter, boot: str | None, seq: int) -> bool:
    """Whether a dead letter is about this fix, not about another one of its array."""
    if entry_of(letter.payload, boot, seq) is None:
        return False
    if not letter.payload.lstrip().startswith(b"["):
        return True
    return f"seq {seq}" in letter.headers.get("detail", "").split("; ")


def _read_database(trace: Trace, conn: psycopg.Connection[Any], boots: Sequence[KnownBoot]) -> None:
    assert trace.boot is not None  # noqa: S101 - for mypy; checked by the caller
    trace.known = next((one for one in boots if one.boot == trace.boot), None)
    parameters = {"driver_id": trace.driver_id, "boot": trace.boot, "seq": trace.seq}
    with translated():
        row = conn.execute(read_sql("trace/history.sql"), parameters).fetchone()
        trace.history = InHistory(*row) if row else None
        parked = conn.execute(read_sql("trace/parked.sql"), parameters).fetchone()
        trace.parked_at = parked[0] if parked else None
        if trace.history is not None:
            parameters |= {"fix_at": trace.history.fix_at}
            trace.proved = conn.execute(read_sql("trace/evidence.sql"), parameters).fetchall()
    marks = fix_writer.read_watermarks(conn, [(trace.driver_id, trace.boot)])
    trace.watermark = marks[0] if marks else None


def _read_positions(
    trace: Trace, conn: psycopg.Connection[Any], positions: TopicReader, max_records: int
) -> None:
    partition = partition_of(trace.driver_id.encode(), len(positions.partitions))
    low, high = positions.bounds()[partition]
    consumed = read_offsets(conn, *positions.identify()).get(partition, 0)
    start = max(low, high - max_records)
    if trace.history is not None:
        arrived_ms = round(trace.history.received_at.timestamp() * 1000)
        start = min(start, positions.since(arrived_ms - SEARCH_BEFORE_MS)[partition][0])
    searched = (start, min(high, start + max_records))
    key = trace.driver_id.encode()
    for message in positions.read({partition: searched}):
        if message.key() != key:
            continue
        entry = entry_of(message.value() or b"", trace.boot, trace.seq)
        if entry is not None:
            _, offset = partition_and_offset(message)
            at_ms = message.timestamp()[1]
            trace.records.append(InKafka(partition, offset, at_ms, entry, offset < consumed))
    trace.partition, trace.searched, trace.lag = partition, searched, max(0, high - consumed)


def _read_letters(trace: Trace, letters: TopicReader) -> list[StoredDeadLetter]:
    partition = partition_of(trace.driver_id.encode(), len(letters.partitions))
    low, high = letters.bounds()[partition]
    found = map(
        StoredDeadLetter.of, letters.read({partition: (max(low, high - MAX_DEAD_LETTERS), high)})
    )
    return [
        letter
        for letter in found
        if letter.driver_id == trace.driver_id and concerns(letter, trace.boot, trace.seq)
    ]
