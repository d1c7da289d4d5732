"""Copy sql/schema into the first migration: `python -m sql.freeze`, while nothing is released.

After the first release a change of the schema is a new revision, and this script goes.
"""

from __future__ import annotations

from pathlib import Path

from sql.install import schema_text

FROZEN = Path(__file__).parent / "migrations" / "versions" / "0001_first.sql"


def frozen_text() -> str:
    """Return what the first migration must hold."""
    return "-- A copy of sql/schema, made by `python -m sql.freeze`.\n\n" + schema_text()


if __name__ == "__main__":
    FROZEN.write_text(frozen_text(), encoding="utf-8")
