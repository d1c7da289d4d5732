"""The customer's page: links to share, web push, the note, an early estimate."""

from __future__ import annotations

from alembic import op

from sql import read_sql

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the file through psycopg, which accepts several statements at once."""
    connection = op.get_bind().connection.driver_connection
    assert connection is not None  # noqa: S101 - for the type checker
    connection.execute(read_sql("migrations/versions/0025_customer_page.sql"))
