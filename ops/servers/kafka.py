"""One Kafka: a KRaft node with the project's configuration."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from doorstep.kafka.access import PLAIN, KafkaAccess
from doorstep.kafka.access_control import ADMIN
from doorstep.kafka.topic_specs import TOPICS, create_topics
from doorstep.settings import Bind
from ops.servers.process import HOST, ServerProcess
from ops.stack import kafka
from ops.stack.addresses import choose_addresses
from ops.stack.paths import StackPaths
from ops.stack.settings import FREE_PORTS, StackSettings

POSITION_PARTITIONS = 4  # of driver-pos; the other topics have one


class KafkaServer(ServerProcess):
    """A Kafka node that is broker and controller. It starts without topics."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        ports = {**FREE_PORTS, "kafka_port": port or 0}
        self._settings = StackSettings(doorstep_home=folder, **ports)
        self._addresses = choose_addresses(self._settings, lambda _line: None)
        super().__init__(folder, self._addresses.kafka.port)
        self._paths = StackPaths(folder)

    @property
    def access(self) -> KafkaAccess:
        """The broker as its administrator reaches it."""
        password = self._paths.kafka_password(ADMIN)
        return KafkaAccess(str(Bind(HOST, self.port)), ADMIN, password, mechanism=PLAIN)

    def argv(self) -> list[str]:
        kafka.prepare(self._paths, self._addresses, self._settings, lambda _line: None)
        return kafka.broker_argv(self._paths, self._settings)

    def is_ready(self) -> bool:
        if not super().is_ready():
            return False
        admin = AdminClient({**self.access.as_librdkafka_dict(), "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def create_topics(self) -> None:
        """Create the project's topics with few partitions."""
        topics = [
            replace(one, partitions=POSITION_PARTITIONS if one.name == "driver-pos" else 1)
            for one in TOPICS
        ]
        create_topics(self.access, topics=topics)

    def erase(self) -> None:
        """Kill the broker and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
