"""What a stack needs beside running servers: users, folders, topics, the schema, the city."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from doorstep.kafka.topic_specs import TopicNotCreated, create_topics
from doorstep.provision import (
    owner_connection,
    provision_firenze,
    provision_staff,
    write_password_file,
)
from ops.stack import mosquitto, probes
from ops.stack.addresses import Addresses, reach
from ops.stack.paths import StackError, StackPaths, place_for, server_user
from ops.stack.postgres import OWNER, PostgresCluster, find_binaries
from ops.stack.settings import PROJECT

UPGRADE_REFUSED = 65  # exit status of `python -m sql upgrade` (EX_DATAERR)
SERVER_TIMEOUT_S = 120.0  # crash recovery included
POLL_S = 0.2


def place_database(paths: StackPaths, say: Callable[[str], None]) -> None:
    """Make the database's folder where its user can reach it.

    Raises StackError if another PostgreSQL's data are there, as after an upgrade of Debian.
    """
    place_for(server_user("postgres"), paths.postgres, say)
    made_by = paths.postgres / "data" / "PG_VERSION"
    if not made_by.exists():
        return
    made, installed = made_by.read_text(encoding="ascii").strip(), find_binaries().parent.name
    if installed.isdecimal() and made != installed:
        raise StackError(
            f"the data in {paths.postgres} are PostgreSQL {made}'s, and PostgreSQL {installed} is "
            "installed: pg_upgrade them, or ./run down --erase"
        )


def prepare_brokers(paths: StackPaths, at: Addresses, say: Callable[[str], None]) -> None:
    """Write each Mosquitto's configuration, and who may connect."""
    mosquitto.prepare(paths, at, say)
    write_password_file(paths.password_file, paths.fleet_key())
    mosquitto.give_to_broker(paths.password_file)


def set_up_topics(at: Addresses, copies: int = 1) -> None:
    """Create Kafka's topics as soon as so many brokers answer. Raises StackError."""
    _wait("kafka", lambda: probes.listens(at.kafka))
    deadline = time.monotonic() + SERVER_TIMEOUT_S
    while True:
        try:
            create_topics(str(reach(at.kafka)), replication_factor=copies)
            return
        except TopicNotCreated as exc:
            if time.monotonic() > deadline:
                raise StackError(str(exc)) from exc
            time.sleep(POLL_S)


def set_up_database(
    paths: StackPaths, cluster: PostgresCluster, owner_environment: Mapping[str, str]
) -> None:
    """Migrate as soon as PostgreSQL answers, and register the city and the staff's token.

    Raises StackError with the reason if the upgrade is refused or fails.
    """
    _wait("postgres", cluster.is_ready)
    cluster.create_database(paths.database_password(OWNER))
    for command in ("upgrade", "passwords"):
        done = subprocess.run(
            [sys.executable, "-m", "sql", command],
            env=dict(owner_environment),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == UPGRADE_REFUSED:
            raise StackError(done.stderr.strip().rpartition("\nsql: ")[2].removeprefix("sql: "))
        if done.returncode != 0:
            raise StackError(f"`python -m sql {command}` failed: {done.stderr[-2000:].strip()}")
    with owner_connection(owner_environment["DATABASE_ADMIN_URL"]) as conn:
        provision_staff(conn, paths.staff_token())
        provision_firenze(conn)


def _wait(part: str, is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SERVER_TIMEOUT_S
    while not is_there():
        if time.monotonic() > deadline:
            raise StackError(f"{part} did not start: see ./run logs {part}")
        time.sleep(POLL_S)
