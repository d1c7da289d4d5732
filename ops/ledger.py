"""The ledger: what the devices' own journals say they published, against what the database has.

    published = committed + rejected, for every driver and boot

A lost fix is found by name, never by subtraction: a seq that a journal has published and that the
database neither holds nor refused. What counts as held is the history itself, row by row; where the
database's own ranges say otherwise, the boot is reported as inconsistent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.multirange import Multirange

from device.journal import PublishedBoot, read_published
from doorstep.store.error_mapping import translated
from sql import read_sql

Span = tuple[int, int]
"""Seqs from the first to the last, both included."""

Boot = tuple[str, str]
"""(driver_id, boot)"""

MAX_NAMED = 20  # lost spans named in a report


@dataclass(frozen=True, slots=True)
class StoredBoot:
    """What the database has of one boot, as sorted spans of seq."""

    stored: Sequence[Span] = ()  # by its own account
    rejected: Sequence[Span] = ()
    in_history: Sequence[Span] = ()
    history_rows: int = 0
    quarantined: Mapping[str, Sequence[Span]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Balance:
    """One boot's account."""

    driver_id: str
    boot: str
    published: int
    committed: int
    rejected: int
    quarantined: Mapping[str, int]
    lost: Sequence[Span]
    inconsistent: bool  # the database's ranges and its history differ, or a row stands twice
    unknown: int  # seqs that the database has and the journal never used
    pending: int  # still in the journal, waiting for the watermark
    voids: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """All boots together."""

    balances: Sequence[Balance]

    @property
    def published(self) -> int:
        """Seqs that the journals have used."""
        return sum(one.published for one in self.balances)

    @property
    def committed(self) -> int:
        """Those in the history, quarantined ones included."""
        return sum(one.committed for one in self.balances)

    @property
    def quarantined(self) -> Counter[str]:
        """Those in the history from which nothing is concluded, by reason."""
        return sum((Counter(one.quarantined) for one in self.balances), Counter[str]())

    @property
    def rejected(self) -> int:
        """Those refused, voids included."""
        return sum(one.rejected for one in self.balances)

    @property
    def lost(self) -> int:
        """Those of which the database knows nothing."""
        return sum(count(one.lost) for one in self.balances)

    @property
    def agrees(self) -> bool:
        """Whether every journal and the database tell the same."""
        return not any(one.lost or one.inconsistent or one.unknown for one in self.balances)

    def fixes(self) -> dict[str, int]:
        """The figures, by name."""
        return {
            "published": self.published,
            "committed": self.committed,
            "quarantined": self.quarantined.total(),
            "rejected": self.rejected,
            "lost": self.lost,
        }

    def complaints(self) -> list[str]:
        """What doesn't agree, a line each."""
        lines = []
        for one in self.balances:
            name = f"{one.driver_id} boot {one.boot}"
            if one.lost:
                spans = ", ".join(f"{first}-{last}" for first, last in one.lost[:MAX_NAMED])
                lines.append(f"{name}: lost {spans} ({one.pending} wait in the journal)")
            if one.inconsistent:
                lines.append(f"{name}: the database's ranges and its history differ")
            if one.unknown:
                lines.append(f"{name}: {one.unknown} seqs that its journal never used")
        return lines


def read_journals(folder: Path) -> list[PublishedBoot]:
    """Read every journal in a folder, running processes' included."""
    return [life for path in sorted(folder.glob("*.sqlite")) for life in read_published(path)]


def compare(
    conn: psycopg.Connection[Any],
    lives: Iterable[PublishedBoot],
    since: Mapping[Boot, int] | None = None,
) -> Ledger:
    """Compare journals with the database; `since` leaves out seqs up to a boot's earlier last."""
    since = since or {}
    journals = [life for life in lives if life.last_seq > since.get((life.driver_id, life.boot), 0)]
    stored = _read_boots(conn, sorted({life.driver_id for life in journals}))
    return Ledger(
        [
            balance(
                life,
                stored.get((life.driver_id, life.boot), StoredBoot()),
                since.get((life.driver_id, life.boot), 0),
            )
            for life in journals
        ]
    )


def balance(life: PublishedBoot, stored: StoredBoot, since: int = 0) -> Balance:
    """Account for the seqs above `since` of one boot."""
    window = [(since + 1, life.last_seq)]
    known = join([*stored.in_history, *stored.rejected])
    in_history = count(join(stored.in_history))
    return Balance(
        driver_id=life.driver_id,
        boot=life.boot,
        published=count(window),
        committed=count(overlap(stored.in_history, window)),
        rejected=count(overlap(stored.rejected, window)),
        quarantined={
            reason: found
            for reason, spans in stored.quarantined.items()
            if (found := count(overlap(spans, window)))
        },
        lost=subtract(window, known),
        inconsistent=join(stored.stored) != join(stored.in_history)
        or stored.history_rows != in_history
        or bool(overlap(stored.stored, stored.rejected)),
        unknown=count(subtract(known, [(1, life.last_seq)])),
        pending=life.pending,
        voids=life.voids,
    )


def read_latency_ms(
    conn: psycopg.Connection[Any], driver_ids: Sequence[str], since: datetime
) -> dict[str, float] | None:
    """From a fix's due instant to its row, p50, p95 and p99; None without any fix."""
    with translated():
        row = conn.execute(
            read_sql("ledger/latency.sql"), {"driver_ids": list(driver_ids), "since": since}
        ).fetchone()
    if row is None or row[0] is None:
        return None
    return dict(zip(("p50", "p95", "p99"), (round(float(ms), 1) for ms in row[0]), strict=True))


def read_freshness_s(
    conn: psycopg.Connection[Any], driver_ids: Sequence[str], since: datetime
) -> float | None:
    """How old the median driver's newest recorded position is; None without any."""
    with translated():
        row = conn.execute(
            read_sql("ledger/freshness.sql"), {"driver_ids": list(driver_ids), "since": since}
        ).fetchone()
    return None if row is None or row[0] is None else float(row[0])


def read_orders(
    conn: psycopg.Connection[Any], driver_ids: Sequence[str], since: datetime
) -> dict[str, int]:
    """How many orders are in each state: new since then, or open then with these drivers."""
    return _counts(conn, "ledger/orders.sql", driver_ids, since)


def read_evidence(
    conn: psycopg.Connection[Any], driver_ids: Sequence[str], since: datetime
) -> dict[str, int]:
    """How often these drivers' fixes have proved each state since then."""
    return _counts(conn, "ledger/evidence.sql", driver_ids, since)


def _counts(
    conn: psycopg.Connection[Any], name: str, driver_ids: Sequence[str], since: datetime
) -> dict[str, int]:
    asked = {"driver_ids": list(driver_ids), "since": since}
    with translated():
        return dict(conn.execute(read_sql(name), asked).fetchall())


def _read_boots(conn: psycopg.Connection[Any], driver_ids: Sequence[str]) -> dict[Boot, StoredBoot]:
    asked = {"driver_ids": list(driver_ids)}
    quarantined: dict[Boot, dict[str, list[Span]]] = {}
    with translated():
        for driver_id, boot, reason, seqs in conn.execute(read_sql("ledger/quarantine.sql"), asked):
            quarantined.setdefault((driver_id, boot), {})[reason] = _spans(seqs)
        return {
            (driver_id, boot): StoredBoot(
                stored=_spans(stored),
                rejected=_spans(rejected),
                in_history=_spans(in_history),
                history_rows=rows,
                quarantined=quarantined.get((driver_id, boot), {}),
            )
            for driver_id, boot, stored, rejected, in_history, rows in conn.execute(
                read_sql("ledger/boots.sql"), asked
            )
        }


def _spans(ranges: Multirange[int]) -> list[Span]:
    """PostgreSQL gives integer ranges as [lower, upper)."""
    return [(one.lower, one.upper - 1) for one in ranges if one.lower is not None and one.upper]


def count(spans: Iterable[Span]) -> int:
    """How many seqs lie in spans that don't overlap."""
    return sum(last - first + 1 for first, last in spans)


def join(spans: Iterable[Span]) -> list[Span]:
    """Sorted spans that neither overlap nor touch."""
    joined: list[Span] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        elif first <= last:
            joined.append((first, last))
    return joined


def subtract(spans: Iterable[Span], taken: Iterable[Span]) -> list[Span]:
    """What is in `spans` and not in `taken`."""
    away = join(taken)
    left: list[Span] = []
    for first, last in join(spans):
        at = first
        for low, high in away:
            if high < at or low > last:
                continue
            if low > at:
                left.append((at, low - 1))
            at = high + 1
        if at <= last:
            left.append((at, last))
    return left


def overlap(one: Iterable[Span], other: Iterable[Span]) -> list[Span]:
    """What is in both."""
    return subtract(one, subtract(one, other))
