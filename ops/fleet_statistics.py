"""Figures of a fleet since an instant, read from the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg

from doorstep.store.error_mapping import translated
from sql import read_sql


def read_latency_ms(
    conn: psycopg.Connection[Any], driver_ids: Sequence[str], since: datetime
) -> dict[str, float] | None:
    """The p50, p95 and p99 from the instant a fix was due to its commit; None without any fix."""
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
    """The median over drivers of the age of the newest position; None without any."""
    with translated():
        row = conn.execute(
            read_sql("ledger/freshness.sql"), {"driver_ids": list(driver_ids), "since": since}
        ).fetchone()
    return None if row is None or row[0] is None else float(row[0])


def read_orders(
    conn: psycopg.Connection[Any], driver_ids: Sequence[str], since: datetime
) -> dict[str, int]:
    """Count orders by state: those created since then, and those open then with these drivers."""
    return _counts(conn, "ledger/orders.sql", driver_ids, since)


def read_evidence(
    conn: psycopg.Connection[Any], driver_ids: Sequence[str], since: datetime
) -> dict[str, int]:
    """Count the states that these drivers' fixes have proved since then."""
    return _counts(conn, "ledger/evidence.sql", driver_ids, since)


def _counts(
    conn: psycopg.Connection[Any], name: str, driver_ids: Sequence[str], since: datetime
) -> dict[str, int]:
    parameters = {"driver_ids": list(driver_ids), "since": since}
    with translated():
        return dict(conn.execute(read_sql(name), parameters).fetchall())
