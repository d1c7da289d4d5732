"""The steps that set up a stack: data folders, brokers, topics, the schema, the cities."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from doorstep.errors import Unavailable
from doorstep.kafka.access_control import ADMIN, GRANTS
from doorstep.kafka.provision import provision_kafka
from doorstep.password_file import TICKERS, add_entries
from doorstep.provision import (
    import_sources,
    owner_connection,
    provision_cities,
    provision_sources,
    provision_staff,
)
from ops.console import Echo
from ops.stack import mosquitto, probes
from ops.stack.addresses import Addresses
from ops.stack.backup_repository import BackupRepository
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.postgres import OWNER, PostgresCluster, find_binaries, postgres_user
from ops.stack.processes import kafka_access
from ops.stack.settings import PROJECT
from ops.stack.users import make_data_dir

UPGRADE_REFUSED = 65  # exit status of `python -m sql upgrade` (EX_DATAERR)
SERVER_TIMEOUT_S = 120.0  # crash recovery included
POLL_S = 0.2


def prepare_database(paths: StackPaths, echo: Echo) -> None:
    """Create the database's folder.

    Raises StackError if its data belong to another major version of PostgreSQL.
    """
    make_data_dir(postgres_user(), paths.postgres, echo)
    version_file = paths.postgres / "data" / "PG_VERSION"
    if not version_file.exists():
        return
    found, installed = version_file.read_text(encoding="ascii").strip(), find_binaries().parent.name
    if installed.isdecimal() and found != installed:
        raise StackError(
            f"the data in {paths.postgres} belong to PostgreSQL {found}, but PostgreSQL "
            f"{installed} is installed: run pg_upgrade, or delete them with ./run down --erase"
        )


def prepare_brokers(paths: StackPaths, addresses: Addresses, echo: Echo) -> None:
    """Write each Mosquitto's configuration, and the services' lines of the password file."""
    mosquitto.prepare(paths, addresses, echo)
    add_entries(paths.password_file, paths.mqtt_passwords())
    mosquitto.set_password_file_owner(paths.password_file)


def set_up_kafka(paths: StackPaths, addresses: Addresses, replication_factor: int = 1) -> None:
    """Create Kafka's topics and access rules once enough brokers answer. Raises StackError."""
    admin = kafka_access(paths, addresses, ADMIN)
    passwords = {name: paths.kafka_password(name) for name in GRANTS}
    nodes = addresses.kafkas or (addresses.kafka,)
    _wait("kafka", lambda: any(map(probes.listens, nodes)))
    deadline = time.monotonic() + SERVER_TIMEOUT_S
    while True:
        try:
            provision_kafka(admin, passwords, replication_factor=replication_factor)
            return
        except Unavailable as exc:
            if time.monotonic() > deadline:
                raise StackError(str(exc)) from exc
            time.sleep(POLL_S)


def set_up_database(
    paths: StackPaths, cluster: PostgresCluster, owner_environment: Mapping[str, str]
) -> None:
    """Once PostgreSQL answers: migrate, and register the cities and the staff token.

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
        cities_dir = owner_environment.get("CITIES_DIR")
        provision_cities(conn, Path(cities_dir) if cities_dir else None)
        provision_sources(conn, [TICKERS])
        import_sources(conn, paths.password_file.with_name("sources"))


def set_up_repository(
    paths: StackPaths,
    nodes: Sequence[PostgresCluster],
    repositories: Sequence[BackupRepository],
    primary: int,
    echo: Echo,
) -> bool:
    """Prepare the backups of a running database, as each of its servers uses them. Idempotent.

    Returns whether they are new: then the servers must archive their WAL from now on.
    """
    first = repositories[0]
    is_new = not first.is_in_use
    for node, repository in zip(nodes, repositories, strict=True):
        repository.prepare(paths, node, echo)
    if is_new and first.is_on_the_same_disk():
        echo(
            f"{first.folder} is on the database's disk, and both can be lost at once: "
            "set BACKUP_DIR to a folder on another"
        )
    repositories[primary].create(nodes[primary])
    return is_new


def wait_until_archiving(cluster: PostgresCluster, command: str) -> None:
    """Wait until a server that was reloaded archives its WAL. Raises StackError."""
    wait_for(
        lambda: cluster.archive_command() == command,
        "PostgreSQL does not archive its WAL: see ./run logs",
    )


def _wait(process: str, is_ready: Callable[[], bool]) -> None:
    wait_for(is_ready, f"{process} did not start: see ./run logs {process}")


def wait_for(
    is_true: Callable[[], bool], otherwise: str, timeout_s: float = SERVER_TIMEOUT_S
) -> None:
    """Wait until it is true. Raises StackError with the text `otherwise` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            raise StackError(otherwise)
        time.sleep(POLL_S)
