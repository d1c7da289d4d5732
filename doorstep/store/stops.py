"""Stops of drivers with several orders: the job that follows time. Nothing here commits.

The rules are in `sql/schema`: docs/explanation/stacked-orders.md.
"""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

from doorstep.store.error_mapping import translated
from sql import query


def settle_evidence(conn: psycopg.Connection[Any], at_most: int) -> int:
    """Derive evidence from fixes that were ahead of time; return the number of drivers."""
    return _count(conn, "settle_evidence", at_most)


def refresh_order_etas(conn: psycopg.Connection[Any], at_most: int) -> int:
    """Estimate arrivals at customers whose stop is not next; return the number of orders."""
    return _count(conn, "refresh_order_etas", at_most)


def _count(conn: psycopg.Connection[Any], name: LiteralString, at_most: int) -> int:
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        [(count,)] = cursor.execute(query(name), {"at_most": at_most}).fetchall()
        return int(count)
