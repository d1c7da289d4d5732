"""Creates the owner's role, `observer` and the empty database on the postgis container.

The first step of docker-compose.yml's `provision`. Idempotent. Reads DATABASE_SUPERUSER_URL, the
owner's password and the database's name from DATABASE_ADMIN_URL, and OBSERVER_PASSWORD. Waits for
the server, because not every container engine waits for its health check.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from doorstep.errors import DoorstepError, SettingsError
from ops.console import print_line
from ops.stack.paths import SUPERUSER
from ops.stack.postgres import OWNER, PostgresCluster

WAIT_TIMEOUT_S = 120.0  # the first start initialises the data folder
POLL_S = 0.5


def cluster_of(environment: Mapping[str, str]) -> PostgresCluster:
    """Describe the server of DATABASE_SUPERUSER_URL. Raises SettingsError."""
    known = _parse_url(environment, "DATABASE_SUPERUSER_URL", SUPERUSER)
    return PostgresCluster(
        data_dir=Path("/nonexistent"),  # in another container
        host=known["host"],
        port=int(known["port"]),
        password=known["password"],
    )


def make_database(environment: Mapping[str, str]) -> None:
    """Wait for the server, then create the role and the database. Raises DoorstepError."""
    cluster = cluster_of(environment)
    owner = _parse_url(environment, "DATABASE_ADMIN_URL", OWNER)
    deadline = time.monotonic() + WAIT_TIMEOUT_S
    while not cluster.is_ready():
        if time.monotonic() > deadline:
            raise DoorstepError(f"{cluster.host}:{cluster.port} does not accept {SUPERUSER}")
        time.sleep(POLL_S)
    cluster.create_database(owner["password"], owner["dbname"])
    if environment.get("OBSERVER_PASSWORD"):
        cluster.create_observer(environment["OBSERVER_PASSWORD"], owner["dbname"])


def _parse_url(environment: Mapping[str, str], name: str, user: str) -> dict[str, str]:
    try:
        known = conninfo_to_dict(environment.get(name, ""))
    except psycopg.ProgrammingError:
        raise SettingsError(f"{name} is not a PostgreSQL URL") from None
    parts = {key: str(value) for key, value in known.items() if value is not None}
    parts.setdefault("port", "5432")
    missing = {"host", "password", "dbname"} - parts.keys()
    if missing or parts.get("user") != user:
        raise SettingsError(f"{name} must be postgresql://{user}:password@host:port/database")
    return parts


def main() -> int:
    """Create the database; the return value is the exit status."""
    try:
        make_database(os.environ)
    except DoorstepError as exc:
        print_line(f"compose_database: {exc}")
        return 1
    print_line("compose_database: the database exists")
    return 0


if __name__ == "__main__":
    sys.exit(main())
