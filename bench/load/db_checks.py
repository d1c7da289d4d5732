"""Database checks after a run: missing fixes, commit latency, size of the history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

from bench.load.devices import Device
from bench.load.histogram import Histogram
from device.journal import PublishedBoot
from doorstep.store.error_mapping import translated
from doorstep.store.pool import connect
from ops.ledger import Balance, Ledger, compare
from sql import read_sql

STATEMENT_TIMEOUT_MS = 600_000  # millions of rows, on a busy machine
DEVICES_AT_ONCE = 5_000

MissingRange = tuple[int, int, int]
"""A device's index, and the first and last seq missing in the database."""


@dataclass(frozen=True, slots=True)
class CommitLatency:
    """Latency from due to commit in a window, in all and per second; commits per second."""

    latency: Histogram = field(default_factory=Histogram)
    by_second: dict[int, Histogram] = field(default_factory=dict)
    committed_by_second: Counter[int] = field(default_factory=Counter)


@contextmanager
def connect_database(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the database's owner, in autocommit mode."""
    with (
        translated(),
        connect(url, statement_timeout_ms=STATEMENT_TIMEOUT_MS, application_name="load") as conn,
    ):
        conn.autocommit = True
        yield conn


def read_missing(
    conn: psycopg.Connection[Any], devices: Sequence[Device], last_seqs: Sequence[int]
) -> list[MissingRange]:
    """Find the seqs that the database has neither stored nor rejected."""
    parameters = {
        "driver_ids": [one.driver_id for one in devices],
        "boots": [one.boot for one in devices],
        "last_seqs": list(last_seqs),
    }
    with translated():
        rows = conn.execute(read_sql("load/missing.sql"), parameters).fetchall()
    return [(index - 1, first_seq, last_seq) for index, first_seq, last_seq in rows]


def read_commit_latency(
    conn: psycopg.Connection[Any], since_s: float, until_s: float, *, boots: str, per_message: int
) -> CommitLatency:
    """Read the commit latencies of the fixes due in a window, of boots like `boots`."""
    found = CommitLatency()
    parameters = {
        "since": datetime.fromtimestamp(since_s, UTC),
        "until": datetime.fromtimestamp(until_s, UTC),
        "boots": boots,
        "per_message": per_message,
    }
    with translated():
        for second, bucket, fixes in conn.execute(read_sql("load/latency.sql"), parameters):
            found.latency.merge([(bucket, fixes)])
            found.by_second.setdefault(second, Histogram()).merge([(bucket, fixes)])
    return found


def read_commits(conn: psycopg.Connection[Any], since_s: float, until_s: float) -> Counter[int]:
    """Count the commits per second of the fixes due in a window."""
    parameters = {
        "since": datetime.fromtimestamp(since_s, UTC),
        "until": datetime.fromtimestamp(until_s, UTC),
    }
    with translated():
        return Counter(dict(conn.execute(read_sql("load/commits.sql"), parameters).fetchall()))


def read_history_bytes(conn: psycopg.Connection[Any]) -> int:
    """Size of the history on disk, indexes included."""
    with translated():
        row = conn.execute(read_sql("load/history_size.sql")).fetchone()
    return int(row[0]) if row else 0


def read_hot_shares(conn: psycopg.Connection[Any]) -> dict[str, float | None]:
    """Share of HOT updates, by table."""
    with translated():
        rows = conn.execute(read_sql("load/updates.sql")).fetchall()
    return {name: round(hot / updates, 4) if updates else None for name, updates, hot in rows}


def reconcile(
    conn: psycopg.Connection[Any], devices: Sequence[Device], last_seqs: Sequence[int]
) -> Ledger:
    """Compare every seq of every device with the history, row by row."""
    boots = [
        PublishedBoot(one.driver_id, one.boot, last_seq, pending=0, voids=0)
        for one, last_seq in zip(devices, last_seqs, strict=True)
    ]
    balances: list[Balance] = []
    for at in range(0, len(boots), DEVICES_AT_ONCE):
        balances += compare(conn, boots[at : at + DEVICES_AT_ONCE]).balances
    return Ledger(balances)
