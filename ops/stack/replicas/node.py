"""`python -m ops.stack.replicas.node etcd|kafka NUMBER --home DIR`: prepares a node and becomes it.

A node with an empty disk joins again: a Kafka node's folder is formatted for the cluster, and the
other members of etcd replace their member. supervisord restarts it until that succeeds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ops.console import print_line
from ops.stack import kafka
from ops.stack.addresses import Addresses
from ops.stack.errors import StackError
from ops.stack.monitoring_files import jmx_agent
from ops.stack.paths import StackPaths
from ops.stack.replicas import etcd, kafka_nodes
from ops.stack.settings import StackSettings
from ops.stack.users import dies_with_parent


def etcd_argv(
    paths: StackPaths, addresses: Addresses, settings: StackSettings, number: int
) -> list[str]:
    """Prepare one etcd, and return its command. Raises StackError."""
    etcd.prepare_member(paths, number, print_line)
    initial = etcd.initial_cluster(addresses)
    if not etcd.has_data(paths, number):
        etcd.drop_partial_data(paths, number)
        if etcd.was_joined(paths, number):
            print_line(f"{etcd.member_name(number)} has no data: it joins as a new member")
            initial = etcd.replace_member(paths, addresses, settings, number)
    argv = etcd.member_argv(paths, addresses, settings, number, initial)
    etcd.mark_joined(paths, number)
    return argv


def kafka_argv(
    paths: StackPaths, addresses: Addresses, settings: StackSettings, number: int
) -> list[str]:
    """Prepare one Kafka node, and return its command. Raises StackError."""
    kafka_nodes.prepare_node(paths, addresses, settings, number, print_line)
    properties = kafka_nodes.properties_file(paths, number)
    return kafka.node_argv(properties, settings, jmx_agent(addresses, settings, number))


NODES = {"etcd": etcd_argv, "kafka": kafka_argv}


def main() -> int:
    """Become the node. Returns only with an error."""
    parser = argparse.ArgumentParser(prog="ops.stack.replicas.node", description=__doc__)
    parser.add_argument("server", choices=NODES)
    parser.add_argument("number", type=int)
    parser.add_argument("--home", type=Path, required=True)
    options = parser.parse_args()
    paths = StackPaths(options.home)
    try:
        addresses = Addresses.load(paths.addresses_file)
        if addresses is None:
            raise StackError("the stack is not up: ./run up --ha")
        argv = NODES[options.server](paths, addresses, StackSettings.load(), options.number)
    except StackError as exc:
        print_line(str(exc))
        return 1
    etcd.exec_argv(dies_with_parent(argv, "TERM"))
    return 1


if __name__ == "__main__":
    sys.exit(main())
