"""A digest of the functions, columns, triggers and enums of a database, to recognise a revision.

`migrations/versions/fingerprints.json` holds the digest of each revision. A digest does not depend
on the version of PostgreSQL, on partitions or on data.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import psycopg

from sql import query, read_sql

QUERIES = "migrations/upgrade.sql"


def read_definitions(conn: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """Return the definitions of a database's objects: {"function record_fixes_v1": [...]}.

    Sets the search path for the rest of the transaction.
    """
    definitions: dict[str, list[str]] = {}
    with conn.cursor() as cursor:
        cursor.execute(query("set_search_path", QUERIES))
        cursor.execute(query("fingerprint", QUERIES))
        for kind, name, definition in cursor:
            definitions.setdefault(f"{kind} {name}", []).append(definition)
    return {key: sorted(definitions[key]) for key in sorted(definitions)}


def fingerprint(conn: psycopg.Connection[Any]) -> str:
    """Return the digest of a database's definitions."""
    return hashlib.sha256(json.dumps(read_definitions(conn)).encode()).hexdigest()


def recorded_fingerprints() -> dict[str, str]:
    """Return the digest of each revision."""
    recorded: dict[str, str] = json.loads(read_sql("migrations/versions/fingerprints.json"))
    return recorded
