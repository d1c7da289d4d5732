"""Three Kafka nodes: each is broker and controller, and each record has three copies.

.doorstep/stack/
├── kafka_cluster_id        for a node that lost its disk
└── kafka-N/                server.properties, data/
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from doorstep.kafka.access import KafkaAccess
from doorstep.kafka.access_control import ADMIN
from doorstep.settings import Bind
from ops.console import Echo
from ops.stack import kafka, probes
from ops.stack.addresses import KAFKA_NODES, Addresses, reach
from ops.stack.paths import StackPaths
from ops.stack.private_file import replace_file
from ops.stack.settings import StackSettings
from ops.stack.users import SERVICE_USER, make_data_dir, server_user

COPIES = KAFKA_NODES
LEAST_COPIES = 2  # a record with fewer is refused: one node may be lost, then writing goes on
ANSWER_TIMEOUT_S = 2.0
REPLICATION = {
    "default.replication.factor": COPIES,
    "min.insync.replicas": LEAST_COPIES,
    "offsets.topic.replication.factor": COPIES,
    "transaction.state.log.replication.factor": COPIES,
    "transaction.state.log.min.isr": LEAST_COPIES,
    "share.coordinator.state.topic.replication.factor": COPIES,
    "share.coordinator.state.topic.min.isr": LEAST_COPIES,
    # Leaders return to a node that was away within a minute instead of five.
    "leader.imbalance.check.interval.seconds": 60,
}


def prepare(paths: StackPaths, addresses: Addresses, settings: StackSettings, echo: Echo) -> None:
    """Write the properties of all nodes, and format their log folders once. Idempotent."""
    for number, _ in enumerate(addresses.kafkas, start=1):
        prepare_node(paths, addresses, settings, number, echo)


def prepare_node(
    paths: StackPaths, addresses: Addresses, settings: StackSettings, number: int, echo: Echo
) -> None:
    """Write one node's properties, and format an empty log folder for the cluster. Idempotent."""
    folder = make_data_dir(server_user(SERVICE_USER), paths.kafka_node(number), echo)
    client, controller = addresses.kafkas[number - 1], addresses.kafka_controllers[number - 1]
    voters = (f"{at}@{bind}" for at, bind in enumerate(addresses.kafka_controllers, start=1))
    kafka.write_properties(
        folder,
        {
            "node.id": number,
            "listeners": f"CLIENTS://{client},CONTROLLER://{controller}",
            "advertised.listeners": f"CLIENTS://{reach(client)}",
            "controller.quorum.voters": ",".join(voters),
            **REPLICATION,
            **kafka.authentication(paths.kafka_password(ADMIN)),
        },
    )
    if not kafka.is_formatted(folder):
        kafka.format_folder(properties_file(paths, number), _cluster_id(paths), settings)


def properties_file(paths: StackPaths, number: int) -> Path:
    """Return the path of one node's properties."""
    return paths.kafka_node(number).resolve() / kafka.PROPERTIES


def count_missing_copies(access: KafkaAccess, node: int) -> int | None:
    """Count the partitions whose copy on a node is not in sync; None without an answer."""
    admin = AdminClient({**access.as_librdkafka_dict(), "log_level": 0})
    try:
        topics = admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics.values()
    except KafkaException:
        return None
    partitions = [one for topic in topics for one in topic.partitions.values()]
    return sum(node in one.replicas and node not in one.isrs for one in partitions)


def probe(access: KafkaAccess, node: int, bind: Bind) -> tuple[bool, str]:
    """Return whether a node has all topics and every copy of its partitions, else the reason."""
    own = replace(access, bootstrap_servers=str(reach(bind)))
    if not probes.kafka_is_ready(bind, own):
        return False, "does not answer"
    missing = count_missing_copies(own, node)
    if missing is None:
        return False, "does not answer"
    return not missing, f"{missing} copies are not in sync" if missing else ""


def _cluster_id(paths: StackPaths) -> str:
    file = paths.kafka_cluster_file
    if not file.exists():
        replace_file(file, kafka.new_cluster_id() + "\n")
    return file.read_text(encoding="ascii").strip()
