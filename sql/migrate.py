"""Upgrades a database to the newest revision, and sets the passwords of the service roles.

Needs the owner's URL (DATABASE_ADMIN_URL); alembic and SQLAlchemy come with the extra `sql`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql as pgsql

from sql import query
from sql.fingerprint import QUERIES, fingerprint, recorded_fingerprints

# The variable that holds the password of each service role.
PASSWORD_VARIABLES = {
    "driver_events": "DRIVER_EVENTS_PASSWORD",
    "driver_api": "DRIVER_API_PASSWORD",
    "tracking_api": "TRACKING_API_PASSWORD",
    "broker_sync": "BROKER_SYNC_PASSWORD",
    "customer": "CUSTOMER_PASSWORD",
    "webhooks": "WEBHOOKS_PASSWORD",
}
# Fixes may be a day late (limits.lateness_s) and two minutes ahead. A week ahead covers a weekend
# during which no process creates partitions.
PARTITION_DAYS_BACK = 2
PARTITION_DAYS_AHEAD = 7
SAVE_AND_ERASE = (
    "Keep running the version that made it, or save what you need (pg_dump) and start with an "
    "empty database (./run down --erase, or docker compose down --volumes). Nothing was changed."
)


class UpgradeRefused(Exception):
    """The database cannot be upgraded. The message says what to do; nothing was changed."""


def upgrade(admin_url: str, revision: str = "head") -> None:
    """Migrate to a revision, then create the partitions around today. Idempotent.

    Raises UpgradeRefused for a database of an unknown revision, for one that does not match its
    revision, and if a revision requires that the services are stopped and they are not.
    """
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(admin_url),  # its URL may list several servers
        poolclass=sqlalchemy.NullPool,
    )
    try:
        with engine.begin() as connection:
            _upgrade(connection, revision)
    except psycopg.errors.ObjectInUse as exc:
        raise UpgradeRefused(f"{exc.diag.message_primary}. Nothing was changed.") from exc
    finally:
        engine.dispose()
    with psycopg.connect(admin_url, options="-c search_path=doorstep,public") as conn:
        ensure_partitions(conn)


def _upgrade(connection: sqlalchemy.Connection, revision: str) -> None:
    conn = connection.connection.driver_connection
    assert conn is not None  # noqa: S101 - for the type checker
    conn.execute(query("lock_upgrade", QUERIES))
    config = Config()
    config.set_main_option("script_location", str(files("sql").joinpath("migrations")))
    config.attributes["connection"] = connection
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    current = _current_revision(connection)
    if current is None:
        if conn.execute(query("has_schema", QUERIES)).fetchone() == (True,):
            raise UpgradeRefused(
                f"the database has a schema doorstep, but no revision. {SAVE_AND_ERASE}"
            )
    elif current not in known:
        raise UpgradeRefused(
            f"the database is at revision {current}, which this version does not have: its newest "
            f"is {known[0]}. Run the version that upgraded the database, or a newer one. Nothing "
            "was changed."
        )
    elif fingerprint(conn) != recorded_fingerprints().get(current):
        raise UpgradeRefused(
            f"the database says that it is at revision {current}, but its functions or columns "
            f"are not those of {current}: a development version made it, or it was changed by "
            f"hand. {SAVE_AND_ERASE}"
        )
    command.upgrade(config, revision)
    reached = _current_revision(connection)
    found = fingerprint(conn)
    if found != recorded_fingerprints().get(str(reached)):
        raise UpgradeRefused(
            f"revision {reached} has made a schema with the fingerprint {found}, which is not the "
            "one recorded in fingerprints.json. Nothing was changed."
        )


def _current_revision(connection: sqlalchemy.Connection) -> str | None:
    options = {"version_table_schema": "public"}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def ensure_partitions(conn: psycopg.Connection[Any]) -> None:
    """Create the daily partitions from two days ago to a week ahead."""
    today = datetime.now(tz=UTC).date()
    conn.execute(
        query("ensure_partitions"),
        {
            "first_day": today - timedelta(days=PARTITION_DAYS_BACK),
            "last_day": today + timedelta(days=PARTITION_DAYS_AHEAD),
        },
    )


def set_passwords(admin_url: str, passwords: Mapping[str, str]) -> None:
    """Set the passwords of service roles: {role: password}."""
    with psycopg.connect(admin_url) as conn:
        for role, password in passwords.items():
            alter = pgsql.SQL(query("set_service_password"))
            conn.execute(
                alter.format(role=pgsql.Identifier(role), password=pgsql.Literal(password))
            )
