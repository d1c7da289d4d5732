"""One batch: records of driver-pos to rows for the database, and its outcomes to a result.

Pure: no I/O, and time comes from the records.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import chain, count, repeat
from typing import Final, NamedTuple

from doorstep.errors import MalformedFix
from doorstep.fix import ID_PATTERN, Refused, decode_many, decode_position
from doorstep.fix.instants import EPOCH
from doorstep.mqtt_topics import POSITION, topic_of
from doorstep.store.records import DeadLetter, IncomingRow, Outcome, refused_row

BootKey = tuple[str, str]
"""(driver_id, boot)."""

# Indexes of an IncomingRow's columns.
_DRIVER_ID: Final = 1
_BOOT: Final = 2
_SEQ: Final = 3
_FIX_AT: Final = 4
_REASON: Final = 13
# There is one already, there is nothing to keep, or it may not be kept.
_NO_DEAD_LETTER = ("rejected_before", "void", "off_duty", "forgotten")

RECORDS_PER_DECODE = 500  # one that is not good costs the fixes of the others 3 µs each

_driver_id_fullmatch = re.compile(ID_PATTERN.encode()).fullmatch


class Record(NamedTuple):
    """One record of driver-pos. `received_at_ms` is Kafka's timestamp."""

    key: bytes | None
    payload: bytes
    received_at_ms: int


class Refusal(NamedTuple):
    """An entry of a record that cannot be used."""

    record_no: int
    reason: str
    detail: str


def _position_topic_of(driver_id: str) -> str:
    return topic_of(driver_id, POSITION)


@dataclass(slots=True)
class Batch:
    """Records and the rows decoded from them. `record_nos[n]` is the record of row `n`.

    `ignored` counts the optional fields that were not usable. `topic_of` returns the MQTT topic of
    a driver's records.
    """

    records: list[Record] = field(default_factory=list)
    rows: list[IncomingRow] = field(default_factory=list)
    record_nos: list[int] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    topic_of: Callable[[str], str] = _position_topic_of


@dataclass(slots=True)
class BatchResult:
    """The outcome of a batch. `not_committed` holds the rows that have another outcome."""

    dead_letters: list[DeadLetter]
    parked: set[BootKey]
    outcomes: Counter[str]
    reasons: Counter[str]
    rows: Sequence[IncomingRow]
    not_committed: set[int]

    # Computed after the commit, which waits only for the dead letters.

    def positions(self) -> list[IncomingRow]:
        """Return the newest committed fix of each driver."""
        return _newest(self.rows, self.not_committed)

    def boot_keys(self) -> set[BootKey]:
        """Return the boots whose watermark may have changed or whose device resent."""
        return {(row[_DRIVER_ID], boot) for row in self.rows if (boot := row[_BOOT]) is not None}


def decode_batch(records: Sequence[Record], max_rows: int, batch: Batch | None = None) -> Batch:
    """Decode records until there are `max_rows` rows, or a few more: arrays are not split.

    A bad record does not affect the others. `batch.records` ends with the last record decoded. A
    given `batch` is extended.
    """
    batch = batch or Batch()
    for at in range(0, len(records), RECORDS_PER_DECODE):
        part = records[at : at + RECORDS_PER_DECODE]
        start = len(batch.records)
        batch.records += part
        if len(batch.rows) + len(part) <= max_rows and _decode_many(batch, start, part, max_rows):
            continue
        if not _decode_each(batch, start, part, max_rows):
            break
    return batch


def _decode_many(batch: Batch, at: int, records: Sequence[Record], max_rows: int) -> bool:
    """Decode records of good fixes only, the common case. False if one is not, or too many."""
    driver_ids = [one for record in records if (one := driver_id_of(record[0])) is not None]
    if len(driver_ids) < len(records):
        return False
    decoded = decode_many([record[1] for record in records])
    if decoded is None or len(batch.rows) + len(decoded.values) > max_rows:
        return False
    record_nos: Iterable[int] = range(at, at + len(records))
    if len(decoded.values) > len(records):  # repeat each as often as its record has fixes
        counts = decoded.counts
        driver_ids = list(chain.from_iterable(map(repeat, driver_ids, counts)))
        records = list(chain.from_iterable(map(repeat, records, counts)))
        record_nos = chain.from_iterable(map(repeat, record_nos, counts))
    rows = batch.rows
    arrived_ms, received_at = 0, EPOCH
    for n, driver_id, record, fix in zip(
        count(len(rows)), driver_ids, records, decoded.values, strict=False
    ):
        if record[2] != arrived_ms:
            arrived_ms = record[2]
            received_at = instant_of_ms(arrived_ms)
        (boot, seq, fix_at, lat_deg, lon_deg, accuracy_m, speed_mps, heading_deg,
         altitude_m, battery) = fix  # fmt: skip
        rows.append((n, driver_id, boot, seq, fix_at, received_at, lon_deg, lat_deg, accuracy_m,
                     speed_mps, heading_deg, altitude_m, battery, None))  # fmt: skip
    batch.record_nos.extend(record_nos)
    return True


def _decode_each(batch: Batch, start: int, records: Sequence[Record], max_rows: int) -> bool:
    """Decode records one by one. False once the batch is full; the rest is left out."""
    rows, record_nos, refusals = batch.rows, batch.record_nos, batch.refusals
    for record_no, (key, payload, received_at_ms) in enumerate(records, start):
        if len(rows) >= max_rows:
            del batch.records[record_no:]
            return False
        driver_id = driver_id_of(key)
        if driver_id is None:
            refusals.append(Refusal(record_no, "bad_id", "the key is not a driver id"))
            continue
        try:
            decoded = decode_position(payload)
        except MalformedFix as exc:
            refusals.append(Refusal(record_no, exc.reason, exc.detail))
            continue
        received_at = instant_of_ms(received_at_ms)
        for fix in decoded:
            if isinstance(fix, Refused):
                if fix.boot is None:
                    refusals.append(Refusal(record_no, fix.reason, f"entry {fix.n}: {fix.detail}"))
                    continue
                row = refused_row(len(rows), driver_id, fix, received_at)
            else:
                if fix.ignored:
                    batch.ignored.update(fix.ignored)
                row = (
                    len(rows),
                    driver_id,
                    fix.boot,
                    fix.seq,
                    fix.fix_at,
                    received_at,
                    fix.lon_deg,
                    fix.lat_deg,
                    fix.accuracy_m,
                    fix.speed_mps,
                    fix.heading_deg,
                    fix.altitude_m,
                    fix.battery,
                    None,
                )
            rows.append(row)
            record_nos.append(record_no)
    return True


def to_dead_letters(batch: Batch, detail: str) -> Batch:
    """Turn a batch that the database refused into dead letters."""
    refusals = [Refusal(n, "refused_by_database", detail) for n in range(len(batch.records))]
    return Batch(batch.records, refusals=refusals, topic_of=batch.topic_of)


def classify(batch: Batch, outcomes: Iterable[Outcome]) -> BatchResult:
    """Build a batch's result. Rows not named in `outcomes` were committed."""
    rows = batch.rows
    refusals = list(batch.refusals)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    not_committed: set[int] = set()
    parked: set[BootKey] = set()
    for n, outcome, reason in ((one.n, one.outcome, one.reason) for one in outcomes):
        row = rows[n]
        not_committed.add(n)
        if outcome == "conflict" and row[_BOOT] is None:
            outcome = "duplicate"  # a phone app repeats its last position with today's battery
        counts[outcome] += 1
        # A malformed copy of a known fix is a dead letter with its own reason.
        reason = row[_REASON] if row[_REASON] and reason not in _NO_DEAD_LETTER else reason
        if outcome == "conflict":
            reason = reason or outcome
        if reason and outcome != "dropped":
            reasons[reason] += 1
        if outcome == "parked":
            parked.add((row[_DRIVER_ID], row[_BOOT] or ""))
        elif outcome in ("conflict", "rejected") or row[_REASON]:
            reason = reason or outcome
            if reason not in _NO_DEAD_LETTER:
                refusals.append(Refusal(batch.record_nos[n], reason, f"seq {row[_SEQ]}"))
    counts["committed"] += len(rows) - len(not_committed)
    counts["malformed"] += len(batch.refusals)
    for refusal in batch.refusals:
        reasons[refusal.reason] += 1
    return BatchResult(
        dead_letters=_dead_letters_of(batch, refusals),
        parked=parked,
        outcomes=+counts,
        reasons=reasons,
        rows=rows,
        not_committed=not_committed,
    )


def _newest(rows: Sequence[IncomingRow], not_committed: set[int]) -> list[IncomingRow]:
    """Return each driver's newest committed row that has a `fix_at`."""
    newest = {row[_DRIVER_ID]: row for row in rows}
    if len(newest) == len(rows) and not not_committed:  # one fix each: 0.1 µs instead of 0.3
        return [row for row in rows if row[_FIX_AT] is not None]
    newest.clear()
    for row in rows:
        fix_at = row[_FIX_AT]
        if row[0] in not_committed or fix_at is None:
            continue
        best = newest.get(row[_DRIVER_ID])
        if best is None or fix_at >= (best[_FIX_AT] or fix_at):
            newest[row[_DRIVER_ID]] = row
    return list(newest.values())


def _record_no(detail: tuple[tuple[int, str], list[str]]) -> int:
    return detail[0][0]


def _dead_letters_of(batch: Batch, refusals: Iterable[Refusal]) -> list[DeadLetter]:
    """Build one dead letter per record and reason, in the records' order.

    An array of 256 bad fixes is not kept 256 times.
    """
    details: dict[tuple[int, str], list[str]] = {}
    for refusal in refusals:
        details.setdefault((refusal.record_no, refusal.reason), []).append(refusal.detail)
    dead_letters = []
    for (record_no, reason), found in sorted(details.items(), key=_record_no):
        record = batch.records[record_no]
        driver_id = driver_id_of(record.key)
        dead_letters.append(
            DeadLetter(
                payload=record.payload,
                driver_id=driver_id,
                reason=reason,
                source="mqtt",
                topic=batch.topic_of(driver_id or ""),
                detail="; ".join(found)[:500],
                received_at_ms=record.received_at_ms,
            )
        )
    return dead_letters


@lru_cache(maxsize=262_144)
def driver_id_of(key: bytes | None) -> str | None:
    """Decode a record's key; None if it is not a driver id."""
    return key.decode("ascii") if key is not None and _driver_id_fullmatch(key) else None


def instant_of_ms(ms: int) -> datetime:
    """Convert a Kafka timestamp to an instant."""
    return EPOCH + timedelta(milliseconds=ms)


def ms_of(instant: datetime) -> int:
    """Convert an instant to whole milliseconds since 1970."""
    since = instant - EPOCH
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
