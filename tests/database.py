"""PostgreSQL for tests: one cluster per session, one migrated template, one clone per test.

A clone takes about 0.1 s, on disk 0.3 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import psycopg
from psycopg import sql as pgsql
from psycopg.rows import dict_row

from ops.servers.postgres import PASSWORD
from ops.stack.postgres import OWNER, PostgresCluster
from sql import query
from sql.migrate import PASSWORD_VARIABLES, set_passwords, upgrade

TEMPLATE = "doorstep_template"
_clone_numbers = count(1)


def create_template(cluster: PostgresCluster) -> None:
    """Create the migrated database that `cloned_database` clones."""
    cluster.create_database(PASSWORD, TEMPLATE)
    admin_url = cluster.url(OWNER, PASSWORD, TEMPLATE)
    upgrade(admin_url)
    set_passwords(admin_url, dict.fromkeys(PASSWORD_VARIABLES, PASSWORD))


@dataclass(frozen=True)
class Database:
    """A test's database."""

    cluster: PostgresCluster
    name: str
    password: str = field(default=PASSWORD, repr=False)

    def url(self, role: str = OWNER) -> str:
        """Return the URL for doorstep_owner, a service's role or `customer`."""
        return self.cluster.url(role, self.password, self.name)

    @property
    def superuser_url(self) -> str:
        return self.cluster.superuser_url(self.name)

    def connect(self, role: str = OWNER, **options: Any) -> psycopg.Connection[Any]:
        """Connect with the project's search path."""
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


@contextmanager
def cloned_database(cluster: PostgresCluster, template: str = TEMPLATE) -> Iterator[Database]:
    """Clone the template, and drop the clone at the end."""
    name = f"doorstep_{next(_clone_numbers)}"
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
