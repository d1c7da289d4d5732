"""The database of Doorstep: schema, migrations and the named queries.

Every SQL text of the product lives in a `.sql` file below this folder. `query(name)` returns a
block of `queries.sql`, and `query(name, path)` one of another file, such as `queries/track.sql`.
Each block starts with a line `-- name --`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString

_BLOCK = re.compile(r"^-- ([a-z0-9_]+) --$", re.MULTILINE)


def read_sql(path: str) -> LiteralString:
    """Read a file of this package, for example `schema/10_types.sql`."""
    return files(__name__).joinpath(path).read_text(encoding="utf-8")


@cache
def _queries(path: str) -> dict[str, LiteralString]:
    _head, *parts = _BLOCK.split(read_sql(path))
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError(f"two blocks of {path} have one name")
    return {name: body.strip() for name, body in zip(names, bodies, strict=True)}


def query(name: str, path: str = "queries.sql") -> LiteralString:
    """Return the named block of a file of this package. Raises KeyError."""
    return _queries(path)[name]


def query_names() -> list[str]:
    """Return the names of all blocks of `queries.sql` and `queries/`, file by file."""
    folder = files(__name__).joinpath("queries")
    paths = ["queries.sql", *sorted(f"queries/{one.name}" for one in folder.iterdir())]
    return [name for path in paths for name in _queries(path)]
