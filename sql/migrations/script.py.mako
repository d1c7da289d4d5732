"""${message}

Revises ${down_revision | comma,n}
"""

from alembic import op

from sql import read_sql

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else 'op.get_bind().connection.driver_connection.execute(read_sql("migrations/versions/....sql"))'}
