"""A second Kafka broker beside the stack's own node, which stays the controller of both.

So the second one can be killed and the first takes over; without the first nothing is decided, as
in any cluster whose controllers have no majority. A quorum takes three.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Sequence

from confluent_kafka import ElectionType, KafkaException
from confluent_kafka.admin import AdminClient

from ops.stack import kafka
from ops.stack.addresses import Addresses, any_free_port, reach
from ops.stack.paths import StackPaths, as_user
from ops.stack.settings import PROJECT, StackSettings
from tests.faults.waiting import wait_until

NODE = 2
NAME = "kafka-2"
SETTINGS = {"kafka_heap_opts": "-Xms64m -Xmx256m -XX:TieredStopAtLevel=1"}
COPIES = 2
START_TIMEOUT_S = 120.0
END_TIMEOUT_S = 30.0


class KafkaBeside:
    """The second broker. Nobody starts it again when it is killed, but `start`."""

    def __init__(self, paths: StackPaths, at: Addresses, settings: StackSettings) -> None:
        """Make its folder, and tell both nodes to keep the groups' offsets twice.

        The first node's folder is there, and the node does not run yet.
        """
        own = paths.kafka.with_name(NAME)
        own.mkdir()
        first, self._properties = paths.kafka / "server.properties", own / "server.properties"
        text = first.read_text(encoding="utf-8") + f"offsets.topic.replication.factor={COPIES}\n"
        first.write_text(text, encoding="utf-8")
        address = f"PLAINTEXT://{at.kafka.host}:{any_free_port(at.kafka.host)}"
        mine = {  # of two lines with one name the later one holds
            "process.roles": "broker",
            "node.id": NODE,
            "listeners": address,
            "advertised.listeners": address,
            "log.dirs": own / "data",
        }
        lines = [text, *(f"{name}={value}" for name, value in mine.items()), ""]
        self._properties.write_text("\n".join(lines), encoding="utf-8")
        self._settings = settings.model_copy(update=SETTINGS)
        kafka.format_folder(self._properties, _cluster_id(paths), self._settings)
        self._log_file = paths.logs / f"{NAME}.log"
        self._servers = str(reach(at.kafka))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                as_user(
                    None, kafka.argv_of(self._properties, self._settings), on_parent_death="KILL"
                ),
                cwd=PROJECT,
                stdout=log,
                stderr=log,
            )

    def await_both(self) -> None:
        """Wait until both nodes may lead. Raises TimeoutError."""
        admin = AdminClient({"bootstrap.servers": self._servers, "log_level": 0})

        def both() -> bool:
            with contextlib.suppress(KafkaException):
                return len(admin.list_topics(timeout=5).brokers) == COPIES
            return False

        wait_until(both, START_TIMEOUT_S, "two Kafka brokers are there")

    def end(self, number: signal.Signals) -> None:
        """Send it a signal and wait for its end, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(END_TIMEOUT_S)

    def leads(self, topic: str) -> int:
        """How many partitions of a topic this broker leads."""
        return sum(leader == NODE for leader, _in_sync in self._partitions(topic))

    def copies(self, topic: str) -> int:
        """How many brokers hold all of every partition of a topic."""
        return min((len(in_sync) for _leader, in_sync in self._partitions(topic)), default=0)

    def lead_its_half(self) -> None:
        """Have every partition led by whom it was given to: a broker that was slow to start has
        none for five minutes."""
        admin = AdminClient({"bootstrap.servers": self._servers, "log_level": 2})
        admin.elect_leaders(ElectionType.PREFERRED).result(60)

    def _partitions(self, topic: str) -> list[tuple[int, Sequence[int]]]:
        admin = AdminClient({"bootstrap.servers": self._servers, "log_level": 2})
        found = admin.list_topics(topic, timeout=10).topics[topic].partitions
        return [(one.leader, one.isrs) for one in found.values()]


def _cluster_id(paths: StackPaths) -> str:
    lines = (paths.kafka / "data" / "meta.properties").read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))
