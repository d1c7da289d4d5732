"""Offers with thousands of unassigned orders, and restaurants with swapped coordinates."""

from __future__ import annotations

from alembic import op

from sql import read_sql

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the file through psycopg, which accepts several statements at once."""
    connection = op.get_bind().connection.driver_connection
    assert connection is not None  # noqa: S101 - for the type checker
    connection.execute(read_sql("migrations/versions/0036_offer_cost.sql"))
