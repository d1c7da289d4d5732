"""Offers of orders to drivers: the job that ends them. Nothing here commits.

The rules are in `sql/schema/56_offers.sql`.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import tuple_row

from doorstep.store.error_mapping import translated
from sql import query

SQL_FILE = "queries/offers.sql"


def advance_offers(conn: psycopg.Connection[Any], at_most: int) -> int:
    """End offers that are due and make the next ones; return the number of orders."""
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        statement = query("advance_offers", SQL_FILE)
        [(count,)] = cursor.execute(statement, {"at_most": at_most}).fetchall()
        return int(count)
