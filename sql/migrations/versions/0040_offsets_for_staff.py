"""The offsets that driver_events keeps here, for the page /observe."""

from __future__ import annotations

from alembic import op

from sql import read_sql

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the file through psycopg, which accepts several statements at once."""
    connection = op.get_bind().connection.driver_connection
    assert connection is not None  # noqa: S101 - for the type checker
    connection.execute(read_sql("migrations/versions/0040_offsets_for_staff.sql"))
