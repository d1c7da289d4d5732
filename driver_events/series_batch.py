"""One batch of series points: records of the topic `series` to rows and dead letters. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from doorstep.errors import MalformedFix
from doorstep.mqtt_topics import SERIES_PREFIX
from doorstep.series import RefusedPoint, decode_points, name_of
from doorstep.store.records import DeadLetter
from driver_events.batch import Record, instant_of_ms

MAX_LEAD = timedelta(seconds=120)  # how far `at` may be ahead of the arrival, as for fixes

Row = tuple[int, str, datetime, float]
"""(number in the batch, series name, instant, value)."""


@dataclass(slots=True)
class SeriesBatch:
    """Records and the rows decoded from them. `record_nos[n]` is the record of row n."""

    records: Sequence[Record]
    rows: list[Row] = field(default_factory=list)
    record_nos: list[int] = field(default_factory=list)
    refusals: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)

    def refuse(self, record_no: int, reason: str, detail: str) -> None:
        """Refuse an entry of a record."""
        self.refusals.setdefault((record_no, reason), []).append(detail)
        self.outcomes[reason] += 1

    def apply_outcomes(self, outcomes: Iterable[tuple[int, str]]) -> None:
        """Apply the database's outcomes, which name the rows that were not written."""
        counts: Counter[str] = Counter()
        for n, outcome in outcomes:
            counts[outcome] += 1
            if outcome == "too_many_series":
                self.refuse(self.record_nos[n], outcome, self.rows[n][1])
            else:
                self.outcomes[outcome] += 1
        self.outcomes["written"] += len(self.rows) - counts.total()

    def dead_letters(self) -> list[DeadLetter]:
        """Build one dead letter per record and reason."""
        return [
            self._dead_letter(self.records[record_no], reason, details)
            for (record_no, reason), details in self.refusals.items()
        ]

    def _dead_letter(self, record: Record, reason: str, details: Sequence[str]) -> DeadLetter:
        name = (record.key or b"").decode("utf-8", "replace")
        return DeadLetter(
            payload=record.payload,
            driver_id=None,
            reason=reason,
            source="mqtt",
            topic=f"{SERIES_PREFIX}{name}".replace("\0", "\ufffd"),
            detail="; ".join(details)[:500].replace("\0", "\ufffd"),
            received_at_ms=record.received_at_ms,
        )


def decode_series(records: Sequence[Record], retention: timedelta) -> SeriesBatch:
    """Decode records. A bad record does not affect the others.

    A point must not be dated after its arrival plus MAX_LEAD, nor before it less `retention`.
    """
    batch = SeriesBatch(records)
    for record_no, (key, payload, received_at_ms) in enumerate(records):
        name = name_of(key)
        if name is None:
            batch.refuse(record_no, "bad_id", "the key is not a series name")
            continue
        try:
            points = decode_points(payload)
        except MalformedFix as exc:
            batch.refuse(record_no, exc.reason, exc.detail)
            continue
        received_at = instant_of_ms(received_at_ms)
        for point in points:
            if isinstance(point, RefusedPoint):
                batch.refuse(record_no, point.reason, f"entry {point.n}: {point.detail}")
            elif point.at > received_at + MAX_LEAD:
                batch.refuse(record_no, "in_the_future", point.at.isoformat())
            elif point.at < received_at - retention:
                batch.refuse(record_no, "too_old", point.at.isoformat())
            else:
                batch.rows.append((len(batch.rows), name, point.at, point.value))
                batch.record_nos.append(record_no)
    return batch


def series_to_dead_letters(records: Sequence[Record], detail: str) -> SeriesBatch:
    """Turn records that the database refused into dead letters."""
    batch = SeriesBatch(records)
    for record_no in range(len(records)):
        batch.refuse(record_no, "refused_by_database", detail)
    return batch
