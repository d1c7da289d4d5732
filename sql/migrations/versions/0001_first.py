"""The first schema: a frozen copy of sql/schema as it was then."""

from __future__ import annotations

from alembic import op

from sql import read_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the copy as it stands: straight through psycopg, which takes many statements at once."""
    connection = op.get_bind().connection.driver_connection
    assert connection is not None  # noqa: S101 - for the type checker
    connection.execute(read_sql("migrations/versions/0001_first.sql"))
