"""The processes of a stack with replicas, and the folders they need."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from doorstep.kafka.access_control import ADMIN
from ops.console import Echo
from ops.stack.addresses import Addresses
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.postgres import PostgresCluster
from ops.stack.processes import ProcessSpec, kafka_access, postgres_cluster
from ops.stack.replicas import etcd, kafka_nodes, patroni
from ops.stack.settings import StackSettings
from ops.stack.users import dies_with_parent

HOW_TO_CONVERT = "docs/how-to/high-availability.md says how to move them"


def check_folder(paths: StackPaths, addresses: Addresses) -> None:
    """Raise StackError if the data belong to a stack of the other kind."""
    if addresses.has_replicas and (paths.postgres / "data").exists():
        raise StackError(
            f"the data in {paths.root} are of a stack without --ha, which cannot be converted in "
            f"place: use another DOORSTEP_HOME, or ./run up without --ha; {HOW_TO_CONVERT}"
        )
    if not addresses.has_replicas and paths.postgres_node(1).exists():
        raise StackError(
            f"the data in {paths.root} are of a stack with replicas: ./run up --ha "
            f"(DOORSTEP_HA=true); {HOW_TO_CONVERT}"
        )


def database_nodes(
    paths: StackPaths, addresses: Addresses, configs: Sequence[Mapping[str, str]] = ()
) -> list[PostgresCluster]:
    """Describe each database server, with further settings of each.

    Its URLs lead to the primary, wherever that is.
    """
    nodes = []
    for number, bind in enumerate(addresses.databases, start=1):
        data_dir = paths.postgres_node(number).resolve() / "data"
        config = configs[number - 1] if configs else {}
        node = postgres_cluster(paths, addresses, data_dir, config)
        nodes.append(replace(node, port=bind.port))
    return nodes


def prepare_replicated_database(
    paths: StackPaths, addresses: Addresses, nodes: Sequence[PostgresCluster], echo: Echo
) -> None:
    """Prepare etcd and both database servers. Idempotent. Raises StackError."""
    etcd.prepare(paths, addresses, echo)
    patroni.prepare(paths, addresses, nodes, echo)


def replica_specs(
    paths: StackPaths, addresses: Addresses, settings: StackSettings
) -> list[ProcessSpec]:
    """Specify etcd, Patroni with the database servers, and the Kafka nodes."""
    node = [sys.executable, "-m", "ops.stack.replicas.node"]
    home = ["--home", str(paths.root)]
    variables = {
        "DOORSTEP_TOOLS": str(settings.doorstep_tools.absolute()),
        "KAFKA_HEAP_OPTS": settings.kafka_heap_opts,
    }
    admin = kafka_access(paths, addresses, ADMIN)
    return [
        *(
            ProcessSpec(
                etcd.member_name(number),
                "etcd",
                dies_with_parent([*node, "etcd", str(number), *home], "TERM"),
                bind,
                environment=variables,
                stop_wait_s=3,  # the last member cannot hand its lead over; its log is on disk
                probe=partial(etcd.probe, paths, settings, bind),
            )
            for number, bind in enumerate(addresses.etcd, start=1)
        ),
        *(
            ProcessSpec(
                patroni.member_name(number),
                "database",
                dies_with_parent(patroni.argv(paths, number), "TERM"),
                bind,
                directory=Path("/"),
                stop_wait_s=40,  # it stops its server: a checkpoint
                probe=partial(patroni.probe, addresses.patroni[number - 1]),
            )
            for number, bind in enumerate(addresses.databases, start=1)
        ),
        *(
            ProcessSpec(
                f"kafka-{number}",
                "brokers",
                dies_with_parent([*node, "kafka", str(number), *home], "TERM"),
                bind,
                environment=variables,
                stop_wait_s=30,
                probe=partial(kafka_nodes.probe, admin, number, bind),
            )
            for number, bind in enumerate(addresses.kafkas, start=1)
        ),
    ]


def stop_databases(paths: StackPaths, addresses: Addresses) -> None:
    """Stop database servers whose Patroni was killed: they run on without it."""
    for node in database_nodes(paths, addresses):
        node.stop()
