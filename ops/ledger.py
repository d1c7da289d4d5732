"""The ledger: compares the fixes that devices' journals published with the database.

    published = committed + rejected, for every driver and boot

Lost fixes are found seq by seq, never by subtracting totals: a seq is lost if a journal published
it and the database neither stored nor rejected it. Stored means a row of the history. A boot is
inconsistent if the database's own account of its seqs differs from its history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.multirange import Multirange

from device.journal import PublishedBoot, read_published
from doorstep.store.error_mapping import translated
from ops.seq_spans import Span, count_seqs, intersect, merge, subtract
from sql import read_sql

Boot = tuple[str, str]
"""(driver_id, boot)"""

MAX_LOST_SPANS = 20  # in a report


@dataclass(frozen=True, slots=True)
class StoredBoot:
    """The seqs of one boot in the database."""

    stored: Sequence[Span] = ()  # by the database's own account
    rejected: Sequence[Span] = ()
    in_history: Sequence[Span] = ()
    history_rows: int = 0
    quarantined: Mapping[str, Sequence[Span]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Balance:
    """The ledger of one boot."""

    driver_id: str
    boot: str
    published: int
    committed: int
    rejected: int
    quarantined: Mapping[str, int]  # count by reason
    first_quarantined: Mapping[str, int]  # lowest seq by reason
    lost: Sequence[Span]
    inconsistent: bool  # the database's account and its history differ, or a row is double
    unknown: int  # seqs in the database that the journal never used
    pending: int  # in the journal, not passed by the watermark
    voids: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger of all boots."""

    balances: Sequence[Balance]

    @property
    def published(self) -> int:
        """Seqs used by the journals."""
        return sum(one.published for one in self.balances)

    @property
    def committed(self) -> int:
        """Seqs in the history, including quarantined ones."""
        return sum(one.committed for one in self.balances)

    @property
    def quarantined(self) -> Counter[str]:
        """Seqs in the history that are never used as evidence, by reason."""
        return sum((Counter(one.quarantined) for one in self.balances), Counter[str]())

    @property
    def rejected(self) -> int:
        """Rejected seqs, including voids."""
        return sum(one.rejected for one in self.balances)

    @property
    def lost(self) -> int:
        """Seqs that are neither in the history nor rejected."""
        return sum(count_seqs(one.lost) for one in self.balances)

    @property
    def agrees(self) -> bool:
        """Whether all journals and the database match."""
        return not any(one.lost or one.inconsistent or one.unknown for one in self.balances)

    def fixes(self) -> dict[str, int]:
        """The totals by name."""
        return {
            "published": self.published,
            "committed": self.committed,
            "quarantined": self.quarantined.total(),
            "rejected": self.rejected,
            "lost": self.lost,
        }

    def quarantine_examples(self) -> dict[str, tuple[str, str, int]]:
        """One quarantined fix of each reason: (driver_id, boot, seq)."""
        return {
            reason: (one.driver_id, one.boot, seq)
            for one in self.balances
            for reason, seq in one.first_quarantined.items()
        }

    def complaints(self) -> list[str]:
        """Describe each mismatch in a line."""
        lines = []
        for one in self.balances:
            name = f"{one.driver_id} boot {one.boot}"
            if one.lost:
                spans = ", ".join(f"{first}-{last}" for first, last in one.lost[:MAX_LOST_SPANS])
                lines.append(f"{name}: lost {spans} ({one.pending} pending in the journal)")
            if one.inconsistent:
                lines.append(f"{name}: the database's account and its history differ")
            if one.unknown:
                lines.append(
                    f"{name}: {one.unknown} seqs in the database that its journal never used"
                )
        return lines


def read_journals(folder: Path) -> list[PublishedBoot]:
    """Read every journal in a folder. Their processes may be running."""
    return [boot for path in sorted(folder.glob("*.sqlite")) for boot in read_published(path)]


def compare(
    conn: psycopg.Connection[Any],
    boots: Iterable[PublishedBoot],
    since: Mapping[Boot, int] | None = None,
) -> Ledger:
    """Compare journals with the database. `since` excludes a boot's seqs up to a number."""
    since = since or {}
    published = [
        boot for boot in boots if boot.last_seq > since.get((boot.driver_id, boot.boot), 0)
    ]
    stored = _read_boots(conn, sorted({boot.driver_id for boot in published}))
    return Ledger(
        [
            balance(
                boot,
                stored.get((boot.driver_id, boot.boot), StoredBoot()),
                since.get((boot.driver_id, boot.boot), 0),
            )
            for boot in published
        ]
    )


def balance(boot: PublishedBoot, stored: StoredBoot, since: int = 0) -> Balance:
    """Compare the seqs above `since` of one boot."""
    window = [(since + 1, boot.last_seq)]
    in_database = merge([*stored.in_history, *stored.rejected])
    quarantined = {
        reason: found
        for reason, spans in stored.quarantined.items()
        if (found := intersect(spans, window))
    }
    return Balance(
        driver_id=boot.driver_id,
        boot=boot.boot,
        published=count_seqs(window),
        committed=count_seqs(intersect(stored.in_history, window)),
        rejected=count_seqs(intersect(stored.rejected, window)),
        quarantined={reason: count_seqs(spans) for reason, spans in quarantined.items()},
        first_quarantined={reason: spans[0][0] for reason, spans in quarantined.items()},
        lost=subtract(window, in_database),
        inconsistent=merge(stored.stored) != merge(stored.in_history)
        or stored.history_rows != count_seqs(merge(stored.in_history))
        or bool(intersect(stored.stored, stored.rejected)),
        unknown=count_seqs(subtract(in_database, [(1, boot.last_seq)])),
        pending=boot.pending,
        voids=boot.voids,
    )


def _read_boots(conn: psycopg.Connection[Any], driver_ids: Sequence[str]) -> dict[Boot, StoredBoot]:
    parameters = {"driver_ids": list(driver_ids)}
    quarantined: dict[Boot, dict[str, list[Span]]] = {}
    with translated():
        for driver_id, boot, reason, seqs in conn.execute(
            read_sql("ledger/quarantine.sql"), parameters
        ):
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
                read_sql("ledger/boots.sql"), parameters
            )
        }


def _spans(ranges: Multirange[int]) -> list[Span]:
    """Convert PostgreSQL's integer ranges, which are [lower, upper)."""
    return [(one.lower, one.upper - 1) for one in ranges if one.lower is not None and one.upper]
