"""`./run restore`: brings the database back, to its newest state or to an earlier instant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from psycopg.rows import class_row

from doorstep.errors import DoorstepError
from doorstep.provision import owner_connection
from ops.backup.credential_log import Applied, CredentialLog, end_customer_links
from ops.backup.previous_data import PreviousData
from ops.backup.recovery import RecoveryFailed, private_server
from ops.backup.servers import RestoredServer, restored_server, resume, start
from ops.console import Echo
from ops.stack.backup_repository import BackupError, BackupRepository
from ops.stack.errors import StackError
from ops.stack.paths import SUPERUSER
from ops.stack.postgres import PostgresCluster, create_replicator, set_superuser_password
from ops.stack.stack import Stack
from sql import query

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
    repository.check_present()
    if not repository.is_in_use:
        raise BackupError(f"there is no backup in {repository.folder}")
    stack.paths.root.mkdir(parents=True, exist_ok=True)
    was_up = stack.is_up()
    with stack.locked():
        server = restored_server(stack, echo, is_up=was_up)
        repository, cluster = server.repository, server.cluster
        try:
            repository.prepare(stack.paths, cluster, echo)
            _check_instant(repository, to)
        except StackError:
            if not was_up:
                resume(stack, server, was_up=False)
            raise
        if was_up:
            _follow_credentials(stack, repository, echo)
            echo("stopping the services and PostgreSQL")
            server.stop()
        if cluster.pid() is not None:
            raise StackError("PostgreSQL still runs: stop it first")
        is_archived = _archive_the_rest(server, echo)
        waiting = _unarchived(cluster)
        if is_archived and waiting:
            resume(stack, server, was_up=was_up)
            raise BackupError(
                f"{len(waiting)} WAL files cannot be archived, and a restore would lose them; see "
                "./run logs postgres. Nothing was changed"
            )
        echo("restoring")
        previous = None if in_place else _keep(stack, server, was_up)
        try:
            repository.restore(to)
            server.prepare()
            restored = _recover(stack, server, to is None and is_archived, echo)
        except (BackupError, RecoveryFailed):
            if previous is not None:
                previous.put_back()
                echo("the restore failed; the database is as it was")
            if previous is not None or not was_up:
                resume(stack, server, was_up=was_up)
            raise
        if previous is not None:
            restored = replace(restored, kept=previous.kept)
        is_started = was_up or stack.has_replicas
        if is_started:
            start(stack, server.start_restored)
    if is_started:
        stack.wait_ready()
    else:
        stack.up()
    return restored


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


def _archive_the_rest(server: RestoredServer, echo: Echo) -> bool:
    """Archive the WAL that a killed server has left; return whether all of it is archived."""
    cluster = server.cluster
    if not (cluster.data_dir / "PG_VERSION").exists():
        echo(f"{cluster.data_dir} is gone: commits of the last minute may be missing")
        return False
    try:
        server.prepare()
        with private_server(cluster.data_dir, echo, server.settings):
            pass  # a clean stop archives everything
    except DoorstepError as exc:
        echo(f"commits of the last minute may be missing: {exc}")
        return False
    return True


def _unarchived(cluster: PostgresCluster) -> list[str]:
    """Return the WAL files that a stopped server has left unarchived."""
    folder = cluster.data_dir / "pg_wal" / "archive_status"
    return sorted(one.stem for one in folder.glob("*.ready"))


def _keep(stack: Stack, server: RestoredServer, was_up: bool) -> PreviousData | None:
    """Rename the database's folder; start it again if that is not possible."""
    repository = server.repository
    try:
        needed_bytes = repository.info().backups[-1].database_bytes
        return PreviousData.keep(repository.data_dir, needed_bytes)
    except BackupError:
        resume(stack, server, was_up=was_up)
        raise


def _recover(stack: Stack, server: RestoredServer, is_complete: bool, echo: Echo) -> Restored:
    log = CredentialLog(server.repository.credentials_file)
    with private_server(server.repository.data_dir, echo, server.settings) as private:
        # The present one: the database may be older than the last `./run rotate-secrets`.
        with private.connect() as conn:
            set_superuser_password(conn, stack.paths.database_password(SUPERUSER))
            if stack.has_replicas:  # the backup may be of a stack without
                create_replicator(conn, stack.paths.replicator_password())
        with private.connect_as_owner() as conn:
            applied = log.apply(conn)
            unlinked = [] if is_complete else end_customer_links(conn)
            with conn.cursor(row_factory=class_row(Contents)) as cursor:
                since = {"since": datetime.now(UTC) - RECENT}
                cursor.execute(query("restored_state", "queries/backup.sql"), since)
                contents = cursor.fetchone()
        if contents is None:
            raise StackError("the restored database is empty")
        return Restored(private.replayed_to, is_complete, contents, applied, unlinked)


def _instant(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z" if at else "no known time"
