"""The schema as one text: the files of `schema/`, in the order of their names."""

from __future__ import annotations

from importlib.resources import files
from typing import LiteralString

from sql import read_sql


def schema_files() -> list[str]:
    """Return the paths of the schema's files, in the order in which they apply."""
    folder = files("sql").joinpath("schema")
    return sorted(
        f"schema/{entry.name}" for entry in folder.iterdir() if entry.name.endswith(".sql")
    )


def schema_text() -> LiteralString:
    """Return the whole schema. Run it as doorstep_owner in one transaction."""
    return "\n".join(read_sql(path) for path in schema_files())
