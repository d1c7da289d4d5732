"""A second Kafka broker beside the stack's node, which stays the only controller.

The second broker can be killed: the first takes over its partitions. Without the first there is no
controller and no election. A quorum needs three controllers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from confluent_kafka import ElectionType, KafkaException
from confluent_kafka.admin import AdminClient

from doorstep.kafka.access_control import ADMIN
from ops.servers.process import ServerProcess
from ops.stack import kafka
from ops.stack.addresses import Addresses, any_free_port
from ops.stack.paths import StackPaths
from ops.stack.private_file import replace_file
from ops.stack.processes import kafka_access
from ops.stack.settings import StackSettings
from ops.stack.users import SERVICE_USER, dies_with_parent, give_to, server_user

NODE = 2
NAME = "kafka-2"
SETTINGS = {"kafka_heap_opts": "-Xms64m -Xmx256m -XX:TieredStopAtLevel=1"}
REPLICAS = 2
ELECTION_TIMEOUT_S = 60.0


class SecondKafka(ServerProcess):
    """The second broker. It is ready when the cluster has both brokers."""

    def __init__(self, paths: StackPaths, at: Addresses, settings: StackSettings) -> None:
        """Create its folder, and configure both nodes to replicate the groups' offsets.

        The first node's folder must exist, and the node must not run yet.
        """
        folder = paths.kafka.with_name(NAME)
        port = any_free_port(at.kafka.host)
        super().__init__(folder, port, log_file=paths.logs / f"{NAME}.log")
        first, self._properties = paths.kafka / "server.properties", folder / "server.properties"
        text = first.read_text(encoding="utf-8") + f"offsets.topic.replication.factor={REPLICAS}\n"
        first.write_text(text, encoding="utf-8")
        address = f"CLIENTS://{at.kafka.host}:{port}"
        overrides = {  # Kafka uses the last of several lines with one name
            "process.roles": "broker",
            "node.id": NODE,
            "listeners": address,
            "advertised.listeners": address,
            "log.dirs": folder / "data",
        }
        lines = [text, *(f"{name}={value}" for name, value in overrides.items()), ""]
        user = server_user(SERVICE_USER)
        replace_file(self._properties, "\n".join(lines), user=user)
        give_to(folder, user)
        self._settings = settings.model_copy(update=SETTINGS)
        kafka.format_folder(self._properties, _cluster_id(paths), self._settings)
        self._kafka = kafka_access(paths, at, ADMIN)

    def argv(self) -> list[str]:
        return dies_with_parent(kafka.node_argv(self._properties, self._settings), "KILL")

    def is_ready(self) -> bool:
        with contextlib.suppress(KafkaException):
            return len(self._admin().list_topics(timeout=5).brokers) == REPLICAS
        return False

    def count_led(self, topic: str) -> int:
        """Count the partitions of a topic that this broker leads."""
        return sum(leader == NODE for leader, _in_sync in self._partitions(topic))

    def count_in_sync(self, topic: str) -> int:
        """Return the least number of in-sync replicas over a topic's partitions."""
        return min((len(in_sync) for _leader, in_sync in self._partitions(topic)), default=0)

    def elect_preferred_leaders(self) -> None:
        """Elect each partition's preferred leader. Kafka itself does so every five minutes."""
        admin = self._admin()  # keep the client until the result is there
        admin.elect_leaders(ElectionType.PREFERRED).result(ELECTION_TIMEOUT_S)

    def _partitions(self, topic: str) -> list[tuple[int, Sequence[int]]]:
        found = self._admin().list_topics(topic, timeout=10).topics[topic].partitions
        return [(one.leader, one.isrs) for one in found.values()]

    def _admin(self) -> AdminClient:
        return AdminClient({**self._kafka.as_librdkafka_dict(), "log_level": 0})


def _cluster_id(paths: StackPaths) -> str:
    lines = (paths.kafka / "data" / "meta.properties").read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))
