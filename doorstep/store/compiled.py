"""Statements of SQLAlchemy Core, compiled once for psycopg."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect, Select
from sqlalchemy.dialects.postgresql import psycopg

_DIALECT: Dialect = psycopg.dialect()  # type: ignore[no-untyped-call]


def compile_statement(statement: Select[Any]) -> bytes:
    """Return a statement's text. Each `bindparam(name)` becomes psycopg's parameter %(name)s."""
    return str(statement.compile(dialect=_DIALECT)).encode()
