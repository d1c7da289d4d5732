"""Bringing a database to the newest revision, and giving the service roles their passwords.

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
from psycopg import sql as pgsql

from sql import query

# Each service role and the variable that holds its password.
PASSWORD_VARIABLES = {
    "driver_events": "DRIVER_EVENTS_PASSWORD",
    "driver_api": "DRIVER_API_PASSWORD",
    "tracking_api": "TRACKING_API_PASSWORD",
}
# Fixes may be a day late (limits.lateness_s) and two minutes ahead; a week ahead outlives a
# weekend without anybody calling.
PARTITION_DAYS_BACK = 2
PARTITION_DAYS_AHEAD = 7


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("sql").joinpath("migrations")))
    return config


def upgrade(admin_url: str, revision: str = "head") -> None:
    """Migrate to a revision, then make the partitions around today. Idempotent."""
    url = sqlalchemy.make_url(admin_url).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    try:
        with engine.begin() as connection:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        engine.dispose()
    with psycopg.connect(admin_url, options="-c search_path=doorstep,public") as conn:
        ensure_partitions(conn)


def ensure_partitions(conn: psycopg.Connection[Any]) -> None:
    """Make the history's daily partitions from the day before yesterday to a week ahead."""
    today = datetime.now(tz=UTC).date()
    conn.execute(
        query("ensure_partitions"),
        {
            "first_day": today - timedelta(days=PARTITION_DAYS_BACK),
            "last_day": today + timedelta(days=PARTITION_DAYS_AHEAD),
        },
    )


def set_passwords(admin_url: str, passwords: Mapping[str, str]) -> None:
    """Let service roles log in: {role: password}."""
    with psycopg.connect(admin_url) as conn:
        for role, password in passwords.items():
            alter = pgsql.SQL(query("set_service_password"))
            conn.execute(
                alter.format(role=pgsql.Identifier(role), password=pgsql.Literal(password))
            )
