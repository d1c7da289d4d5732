"""The database server that a restore replaces: the only one, or with --ha the primary."""

from __future__ import annotations

import contextlib
import json
import shutil
import xmlrpc.client
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from ops.console import Echo
from ops.stack.backup_repository import BackupRepository
from ops.stack.errors import StackError
from ops.stack.paths import SUPERUSER
from ops.stack.postgres import PostgresCluster, postgres_user
from ops.stack.private_file import replace_file
from ops.stack.replicas import etcd, patroni
from ops.stack.replicas.specs import stop_databases
from ops.stack.setup import prepare_database, wait_for
from ops.stack.stack import Stack

GROUPS = ("services", "backups")
ETCD_WITHIN_S = PRIMARY_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class RestoredServer:
    """The server whose folder is replaced, and how it stops and starts."""

    repository: BackupRepository
    cluster: PostgresCluster
    prepare: Callable[[], None]  # the folder's configuration
    stop: Callable[[], None]
    start: Callable[[], None]  # with its data of before
    start_restored: Callable[[], None]
    settings: Mapping[str, str] = field(default_factory=dict)  # for the replay of its WAL


def restored_server(stack: Stack, echo: Echo, *, is_up: bool) -> RestoredServer:
    """Choose the server to restore. Raises StackError."""
    if stack.has_replicas:
        return _with_replicas(stack, is_up=is_up)
    repository = stack.backups()
    cluster = stack.cluster() if is_up else _stopped_cluster(stack, repository, echo)
    start = partial(stack.start_process, "postgres")
    return RestoredServer(
        repository, cluster, cluster.prepare, partial(_stop, stack, "postgres"), start, start
    )


def _stopped_cluster(stack: Stack, repository: BackupRepository, echo: Echo) -> PostgresCluster:
    stack.paths.prepare()
    prepare_database(stack.paths, echo)
    return PostgresCluster(
        repository.data_dir,
        5432,  # until `up` chooses one
        stack.paths.database_password(SUPERUSER),
        config=repository.postgres_config(),
    )


def _with_replicas(stack: Stack, *, is_up: bool) -> RestoredServer:
    if not is_up:
        stack.start_without_database()
        _wait_for_etcd(stack)
    place = _newest(stack)
    repository, cluster = stack.repositories()[place], stack.database_nodes()[place]
    number = place + 1
    names = [patroni.member_name(at) for at, _ in enumerate(stack.addresses.databases, start=1)]
    # The primary stops last, so that the other does not become one.
    names.sort(key=lambda one: one == patroni.member_name(number))

    def stop() -> None:
        _stop(stack, *names)
        stop_databases(stack.paths, stack.addresses)

    def start() -> None:
        for name in reversed(names):
            stack.start_process(name)

    return RestoredServer(
        repository,
        cluster,
        cluster.prepare_folders,
        stop,
        start,
        partial(_start_restored, stack, number),
        # No standby confirms commits, and the configuration may be the other server's.
        {"synchronous_standby_names": "", **repository.postgres_config()},
    )


def _wait_for_etcd(stack: Stack) -> None:
    first = stack.addresses.etcd[0]
    wait_for(
        lambda: etcd.probe(stack.paths, stack.settings, first)[0],
        "etcd has no leader: ./run logs etcd-1",
        ETCD_WITHIN_S,
    )


def _newest(stack: Stack) -> int:
    """Return the place of the primary, or of the server that was one."""
    with contextlib.suppress(StackError):
        return stack.primary()
    folders = [one.data_dir for one in stack.database_nodes()]
    have_data = [at for at, one in enumerate(folders) if (one / "PG_VERSION").exists()]
    were_primary = [at for at in have_data if not (folders[at] / "standby.signal").exists()]
    if have_data and len(were_primary) != 1:
        raise StackError(
            "which database server has the newest state is not known: let ./run status show a "
            "primary first, or delete the folder `data` of each server that is not needed"
        )
    return were_primary[0] if were_primary else 0


def _start_restored(stack: Stack, number: int) -> None:
    """Start a restored server as the primary, and let the other copy it."""
    paths, addresses = stack.paths, stack.addresses
    nodes = stack.database_nodes()
    folder = paths.postgres_node(number).resolve()
    etcd.forget_database(paths, addresses, stack.settings, patroni.SCOPE)
    settings = patroni.configuration(paths, addresses, nodes[number - 1], folder, number)
    replace_file(
        nodes[number - 1].data_dir / patroni.SHARED_SETTINGS,
        json.dumps(settings["bootstrap"]["dcs"]),
        user=postgres_user(),
    )
    stack.start_process(patroni.member_name(number))
    wait_for(
        partial(patroni.is_primary, addresses.patroni[number - 1]),
        f"the restored server is no primary: ./run logs patroni-{number}",
        PRIMARY_WITHIN_S,
    )
    for at, node in enumerate(nodes, start=1):
        if at != number:
            shutil.rmtree(node.data_dir, ignore_errors=True)
            stack.start_process(patroni.member_name(at))


def resume(stack: Stack, server: RestoredServer, *, was_up: bool) -> None:
    """Start all again with the data of before, or stop what only the restore has started."""
    if was_up:
        start(stack, server.start)
    elif stack.has_replicas:
        stack.supervisor.stop()


def start(stack: Stack, start_database: Callable[[], None]) -> None:
    """Start the database, then the rest."""
    start_database()
    stack.set_up()
    for group in GROUPS:
        with contextlib.suppress(xmlrpc.client.Fault):
            stack.supervisor.start_group(group)


def _stop(stack: Stack, *processes: str) -> None:
    for group in GROUPS:
        with contextlib.suppress(xmlrpc.client.Fault):  # there is none, or it does not run
            stack.supervisor.stop_group(group)
    for process in processes:
        with contextlib.suppress(xmlrpc.client.Fault):
            stack.stop_process(process)
