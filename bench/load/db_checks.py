"""What the database says afterwards: what is missing, how late it was, how large it is."""

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

STATEMENT_TIMEOUT_MS = 600_000  # millions of rows, on a machine that is still at work
DEVICES_AT_ONCE = 5_000

Gap = tuple[int, int, int]
"""A device's place, and the first and last of the seqs that the database doesn't know."""


@dataclass(frozen=True, slots=True)
class Lateness:
    """From due to commit: all of a window, and each second of it; how many were committed when."""

    latency: Histogram = field(default_factory=Histogram)
    by_second: dict[int, Histogram] = field(default_factory=dict)
    committed_by_second: Counter[int] = field(default_factory=Counter)


@contextmanager
def open_books(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the database's owner; each look is a transaction of its own."""
    with (
        translated(),
        connect(url, statement_timeout_ms=STATEMENT_TIMEOUT_MS, application_name="load") as conn,
    ):
        conn.autocommit = True
        yield conn


def read_missing(
    conn: psycopg.Connection[Any], devices: Sequence[Device], last_seqs: Sequence[int]
) -> list[Gap]:
    """Compare each device's seqs with what the database holds or has refused."""
    asked = {
        "driver_ids": [one.driver_id for one in devices],
        "boots": [one.boot for one in devices],
        "last_seqs": list(last_seqs),
    }
    with translated():
        rows = conn.execute(read_sql("load/missing.sql"), asked).fetchall()
    return [(place - 1, first_seq, last_seq) for place, first_seq, last_seq in rows]


def read_lateness(
    conn: psycopg.Connection[Any], since_s: float, until_s: float, per_message: int
) -> Lateness:
    """Read the latencies of the fixes that were due in a window."""
    found = Lateness()
    asked = {
        "since": datetime.fromtimestamp(since_s, UTC),
        "until": datetime.fromtimestamp(until_s, UTC),
        "per_message": per_message,
    }
    with translated():
        for second, bucket, fixes in conn.execute(read_sql("load/latency.sql"), asked):
            found.latency.merge([(bucket, fixes)])
            found.by_second.setdefault(second, Histogram()).merge([(bucket, fixes)])
    return found


def read_commits(conn: psycopg.Connection[Any], since_s: float, until_s: float) -> Counter[int]:
    """How many of the fixes that were due in a time were committed in each second."""
    asked = {
        "since": datetime.fromtimestamp(since_s, UTC),
        "until": datetime.fromtimestamp(until_s, UTC),
    }
    with translated():
        return Counter(dict(conn.execute(read_sql("load/commits.sql"), asked).fetchall()))


def read_history_bytes(conn: psycopg.Connection[Any]) -> int:
    """How large the history is on disk, indexes included."""
    with translated():
        row = conn.execute(read_sql("load/history_size.sql")).fetchone()
    return int(row[0]) if row else 0


def read_hot_shares(conn: psycopg.Connection[Any]) -> dict[str, float | None]:
    """Which share of the rewritten rows stayed on their page (HOT), by table."""
    with translated():
        rows = conn.execute(read_sql("load/updates.sql")).fetchall()
    return {name: round(hot / updates, 4) if updates else None for name, updates, hot in rows}


def balance_books(
    conn: psycopg.Connection[Any], devices: Sequence[Device], last_seqs: Sequence[int]
) -> Ledger:
    """Account for every seq of every device, against the history itself, row by row."""
    lives = [
        PublishedBoot(one.driver_id, one.boot, last_seq, pending=0, voids=0)
        for one, last_seq in zip(devices, last_seqs, strict=True)
    ]
    balances: list[Balance] = []
    for at in range(0, len(lives), DEVICES_AT_ONCE):
        balances += compare(conn, lives[at : at + DEVICES_AT_ONCE]).balances
    return Ledger(balances)
