"""Notifications by web push are sent once, and lost by no crash; by SMS through webhooks."""

from __future__ import annotations

from alembic import op

from sql import read_sql

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the file through psycopg, which accepts several statements at once."""
    connection = op.get_bind().connection.driver_connection
    assert connection is not None  # noqa: S101 - for the type checker
    connection.execute(read_sql("migrations/versions/0039_notifications.sql"))
