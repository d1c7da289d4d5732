"""Drivers who take a failed order back are marked in tiles."""

from __future__ import annotations

from alembic import op

from sql import read_sql

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the file through psycopg, which accepts several statements at once."""
    connection = op.get_bind().connection.driver_connection
    assert connection is not None  # noqa: S101 - for the type checker
    connection.execute(read_sql("migrations/versions/0038_returning_drivers.sql"))
