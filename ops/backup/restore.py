"""`./run restore`: brings the database back, to its newest state or to an earlier instant."""

from __future__ import annotations

import contextlib
import xmlrpc.client
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from psycopg.rows import class_row

from doorstep.errors import DoorstepError
from doorstep.provision import owner_connection
from ops.backup.credential_log import Applied, CredentialLog, end_customer_links
from ops.backup.previous_data import PreviousData
from ops.backup.recovery import RecoveryFailed, private_server
from ops.console import Echo
from ops.stack.backup_repository import BackupError, BackupRepository
from ops.stack.errors import StackError
from ops.stack.paths import SUPERUSER
from ops.stack.postgres import PostgresCluster, set_superuser_password
from ops.stack.setup import prepare_database
from ops.stack.stack import Stack
from sql import query

GROUPS = ("services", "backups")
MAX_LINES = 100
RECENT = timedelta(days=3)  # where the newest fix of a restored database is looked for


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in the database. `kafka_from`: later records are read from Kafka again."""

    drivers: int
    orders: int
    open_orders: int
    newest_fix_at: datetime | None  # its commit
    kafka_from: datetime | None


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of a restore, before services start."""

    commit_at: datetime | None  # of the newest commit that was replayed
    is_complete: bool  # the newest state, with all WAL of the server that was stopped
    contents: Contents
    applied: Applied
    unlinked_orders: list[str]
    kept: Path | None = None  # the database's folder of before

    def lines(self) -> list[str]:
        """Describe it."""
        has = self.contents
        at = f"{self.commit_at:%Y-%m-%d %H:%M:%S.%f}Z" if self.commit_at else "the last backup"
        lines = [
            f"restored to {at}" + (" (the newest commit)" if self.is_complete else ""),
            f"in: {has.drivers:,} drivers, {has.orders:,} orders ({has.open_orders:,} open); "
            f"the newest fix was committed at {_instant(has.newest_fix_at)}",
            f"fixes that Kafka got after {_instant(has.kafka_from)} are read from it again; of "
            "those that it no longer has, devices send what their journals have",
        ]
        if not self.is_complete:
            lines.append("not in: later orders, commands and PATCHes: give those again")
        names = self.applied.credentials
        lines += [f"changed later, and as then: {name}" for name in names[:MAX_LINES]]
        if len(names) > MAX_LINES:
            lines.append(f"… and {len(names) - MAX_LINES:,} more credentials")
        lines += [f"erased again: {name}" for name in self.applied.forgotten]
        lines += [f"repeat ./run forget {name}" for name in self.applied.not_forgotten]
        lines += [
            f"links ended of order {order_id}, which may have ended since: "
            f"POST /orders/{order_id}/link makes a new one"
            for order_id in self.unlinked_orders
        ]
        if self.kept is not None:
            lines.append(f"the database of before is in {self.kept}: delete it once you are sure")
        return lines


def restore(stack: Stack, to: datetime | None, echo: Echo, *, in_place: bool = False) -> Restored:
    """Stop services and PostgreSQL, restore, and start all again. Raises StackError.

    The database's folder is kept under another name, unless `in_place`. A restore that fails
    before the database is open puts it back.
    """
    repository = stack.backups()
    if not repository.is_in_use:
        raise BackupError(f"there is no backup in {repository.folder}")
    stack.paths.root.mkdir(parents=True, exist_ok=True)
    was_up = stack.is_up()
    with stack.locked():
        cluster = _cluster(stack, repository, was_up, echo)
        repository.prepare(stack.paths, cluster, echo)
        _check_instant(repository, to)
        if was_up:
            _follow_credentials(stack, repository, echo)
            echo("stopping the services and PostgreSQL")
            _stop(stack)
        if cluster.pid() is not None:
            raise StackError("PostgreSQL still runs: stop it first")
        is_archived = _archive_the_rest(cluster, echo)
        waiting = _unarchived(cluster)
        if is_archived and waiting:
            if was_up:
                _start(stack)
            raise BackupError(
                f"{len(waiting)} WAL files cannot be archived, and a restore would lose them; see "
                "./run logs postgres. Nothing was changed"
            )
        echo("restoring")
        previous = None if in_place else _keep(stack, repository, was_up)
        try:
            repository.restore(to)
            cluster.prepare()
            restored = _recover(stack, repository, to is None and is_archived, echo)
        except (BackupError, RecoveryFailed):
            if previous is not None:
                previous.put_back()
                echo("the restore failed; the database is as it was")
                if was_up:
                    _start(stack)
            raise
        if previous is not None:
            restored = replace(restored, kept=previous.kept)
        if was_up:
            _start(stack)
    if was_up:
        stack.wait_ready()
    else:
        stack.up()
    return restored


def _cluster(
    stack: Stack, repository: BackupRepository, is_up: bool, echo: Echo
) -> PostgresCluster:
    if is_up:
        return stack.cluster()
    stack.paths.prepare()
    prepare_database(stack.paths, echo)
    return PostgresCluster(
        repository.data_dir,
        5432,  # until `up` chooses one
        stack.paths.database_password(SUPERUSER),
        config=repository.postgres_config(),
    )


def _check_instant(repository: BackupRepository, to: datetime | None) -> None:
    backups = repository.info().backups
    if not backups:
        raise BackupError(f"there is no backup in {repository.folder}")
    first = backups[0].ended_at
    if to is not None and to < first:
        raise BackupError(f"the first backup is of {first:%Y-%m-%dT%H:%M:%SZ}: choose a later time")
    if to is not None and to > datetime.now(UTC):
        raise BackupError(f"{to:%Y-%m-%dT%H:%M:%SZ} is in the future")


def _follow_credentials(stack: Stack, repository: BackupRepository, echo: Echo) -> None:
    """Log the newest revocations, if the database still answers."""
    try:
        with owner_connection(stack.database_admin_url) as conn:
            CredentialLog(repository.credentials_file).follow(conn)
    except DoorstepError as exc:
        echo(f"the database does not answer; revocations of the last second may be missing: {exc}")


def _stop(stack: Stack) -> None:
    for group in GROUPS:
        with contextlib.suppress(xmlrpc.client.Fault):  # there is none, or it does not run
            stack.supervisor.stop_group(group)
    with contextlib.suppress(xmlrpc.client.Fault):
        stack.stop_process("postgres")


def _archive_the_rest(cluster: PostgresCluster, echo: Echo) -> bool:
    """Archive the WAL that a killed server has left; return whether all of it is archived."""
    if not (cluster.data_dir / "PG_VERSION").exists():
        echo(f"{cluster.data_dir} is gone: commits of the last minute may be missing")
        return False
    try:
        cluster.prepare()
        with private_server(cluster.data_dir, echo):
            pass  # a clean stop archives everything
    except DoorstepError as exc:
        echo(f"commits of the last minute may be missing: {exc}")
        return False
    return True


def _unarchived(cluster: PostgresCluster) -> list[str]:
    """Return the WAL files that a stopped server has left unarchived."""
    folder = cluster.data_dir / "pg_wal" / "archive_status"
    return sorted(one.stem for one in folder.glob("*.ready"))


def _keep(stack: Stack, repository: BackupRepository, was_up: bool) -> PreviousData | None:
    """Rename the database's folder; start it again if that is not possible."""
    try:
        needed_bytes = repository.info().backups[-1].database_bytes
        return PreviousData.keep(repository.data_dir, needed_bytes)
    except BackupError:
        if was_up:
            _start(stack)
        raise


def _recover(stack: Stack, repository: BackupRepository, is_complete: bool, echo: Echo) -> Restored:
    log = CredentialLog(repository.credentials_file)
    with private_server(repository.data_dir, echo) as server:
        # The present one: the database may be older than the last `./run rotate-secrets`.
        with server.connect() as conn:
            set_superuser_password(conn, stack.paths.database_password(SUPERUSER))
        with server.connect_as_owner() as conn:
            applied = log.apply(conn)
            unlinked = [] if is_complete else end_customer_links(conn)
            with conn.cursor(row_factory=class_row(Contents)) as cursor:
                since = {"since": datetime.now(UTC) - RECENT}
                cursor.execute(query("restored_state", "queries/backup.sql"), since)
                contents = cursor.fetchone()
        if contents is None:
            raise StackError("the restored database is empty")
        return Restored(server.replayed_to, is_complete, contents, applied, unlinked)


def _start(stack: Stack) -> None:
    stack.start_process("postgres")
    stack.set_up()
    for group in GROUPS:
        with contextlib.suppress(xmlrpc.client.Fault):
            stack.supervisor.start_group(group)


def _instant(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z" if at else "no known time"
