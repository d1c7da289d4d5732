"""PostgreSQL for tests: one throw-away cluster a session, one migrated template, a clone a test.

The server is a real one with fsync off; a clone takes about 0.1 s.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql as pgsql
from psycopg.rows import dict_row

from ops.stack.addresses import any_free_port
from ops.stack.postgres import NOT_DURABLE, OWNER, PostgresCluster
from sql import query
from sql.migrate import PASSWORD_VARIABLES, set_passwords, upgrade

PASSWORD = "test-only"
TEMPLATE = "doorstep_template"


@contextmanager
def running_cluster() -> Iterator[PostgresCluster]:
    """Run an empty cluster below the temporary folder, and erase it at the end."""
    # Not pytest's tmp_path: nobody but its owner may enter that, and as root the server is
    # another user.
    paths = Path(tempfile.mkdtemp(prefix="doorstep-test-"))
    paths.chmod(0o711)
    config = {**NOT_DURABLE, "shared_buffers": "64MB", "max_connections": "60"}
    cluster = PostgresCluster(paths / "data", any_free_port(), PASSWORD, config=config)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.erase()
        shutil.rmtree(paths, ignore_errors=True)


def create_template(cluster: PostgresCluster) -> None:
    """Make the migrated database that tests clone."""
    cluster.create_database(PASSWORD, TEMPLATE)
    admin_url = cluster.url(OWNER, PASSWORD, TEMPLATE)
    upgrade(admin_url)
    set_passwords(admin_url, dict.fromkeys((*PASSWORD_VARIABLES, "customer"), PASSWORD))


@dataclass(frozen=True)
class Database:
    """One test's database."""

    cluster: PostgresCluster
    name: str
    password: str = field(default=PASSWORD, repr=False)

    def url(self, role: str = OWNER) -> str:
        """Give the URL for doorstep_owner, or a role of a service or of customers."""
        return self.cluster.url(role, self.password, self.name)

    @property
    def superuser_url(self) -> str:
        return self.cluster.superuser_url(self.name)

    def connect(self, role: str = OWNER, **options: Any) -> psycopg.Connection[Any]:
        """Open a connection with our search path."""
        return psycopg.connect(self.url(role), options="-c search_path=doorstep,public", **options)

    def rows(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        """Run a statement as the owner and return its rows."""
        with self.connect(autocommit=True) as conn, conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *parameters: object) -> Any:
        """Run a statement as the owner and return its only value."""
        [row] = self.rows(statement, *parameters)
        [value] = row.values()
        return value


_clones = 0


@contextmanager
def cloned_database(cluster: PostgresCluster, template: str = TEMPLATE) -> Iterator[Database]:
    """Clone the template, and drop the clone at the end."""
    global _clones
    _clones += 1
    name = f"doorstep_{_clones}"
    identifier = pgsql.Identifier(name)
    clone = pgsql.SQL(query("clone_database")).format(
        name=identifier, template=pgsql.Identifier(template), owner=pgsql.Identifier(OWNER)
    )
    with psycopg.connect(cluster.superuser_url(), autocommit=True) as conn:
        conn.execute(clone)
        # privileges on the database itself are not cloned
        conn.execute(pgsql.SQL(query("close_database")).format(name=identifier))
    try:
        yield Database(cluster, name)
    finally:  # on a new connection: the test may have killed the server
        with psycopg.connect(cluster.superuser_url(), autocommit=True) as conn:
            conn.execute(pgsql.SQL(query("drop_database")).format(name=identifier))
