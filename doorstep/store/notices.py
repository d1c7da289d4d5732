"""The jobs that decide notices of orders and alerts. Nothing here commits.

The rules are in `sql/schema/57_notices.sql`.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import tuple_row

from doorstep.store.error_mapping import translated
from sql import query

SQL_FILE = "queries/webhooks.sql"


def decide_notices(conn: psycopg.Connection[Any], at_most: int) -> int:
    """Write the notices that are due, of each kind `at_most`; return their number."""
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        statement = query("decide_notices", SQL_FILE)
        [(count,)] = cursor.execute(statement, {"at_most": at_most}).fetchall()
        return int(count)


def update_alerts(conn: psycopg.Connection[Any]) -> int:
    """Raise and resolve alerts; return how many."""
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        [(count,)] = cursor.execute(query("update_alerts", SQL_FILE)).fetchall()
        return int(count)
