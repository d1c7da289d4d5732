"""What the tables hold, found in the catalog, so that a new table is not forgotten."""

from __future__ import annotations

from tests.sql.fleet import Fleet


def tables(fleet: Fleet) -> list[str]:
    rows = fleet.run(
        "SELECT relname FROM pg_class WHERE relnamespace = 'doorstep'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'alembic_version'"
    )
    return sorted(row["relname"] for row in rows)


def tables_with(fleet: Fleet, *texts: str) -> set[str]:
    """Return the tables with a row that contains one of the texts, as text or as bytes."""
    patterns = [f"%{text}%" for text in texts] + [f"%{text.encode().hex()}%" for text in texts]
    return {
        table
        for table in tables(fleet)
        if fleet.run(f"SELECT 1 FROM {table} t WHERE t::text LIKE ANY (%s)", patterns)
    }


def columns_of(fleet: Fleet, column: str) -> set[str]:
    rows = fleet.run(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = 'doorstep'::regnamespace AND c.relkind IN ('r', 'p')"
        " AND NOT c.relispartition AND a.attname = %s AND NOT a.attisdropped",
        column,
    )
    return {row["relname"] for row in rows}
