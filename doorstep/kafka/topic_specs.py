"""The Kafka topics: partitions and retention.

`python -m doorstep.kafka.topic_specs` creates the missing ones on KAFKA_BOOTSTRAP_SERVERS.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from doorstep.errors import Unavailable

HOUR_MS = 60 * 60 * 1000
DAY_MS = 24 * HOUR_MS
MIB = 1024 * 1024
ANSWER_TIMEOUT_S = 10.0


class TopicNotCreated(Unavailable):
    """Kafka did not create a topic."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. With `retention_ms` None it is compacted: the newest record per key is kept."""

    name: str
    partitions: int
    retention_ms: int | None
    retention_bytes: int = -1  # per partition
    max_message_bytes: int = MIB

    def config(self) -> dict[str, str]:
        """Return the topic's Kafka configuration."""
        shared = {"max.message.bytes": str(self.max_message_bytes)}
        if self.retention_ms is None:
            return shared | {"cleanup.policy": "compact"}
        return shared | {
            "cleanup.policy": "delete",
            "retention.ms": str(self.retention_ms),
            "retention.bytes": str(self.retention_bytes),
        }


TOPICS = (
    # 12 x 2 GiB bound the disk: about 100 million fixes. Devices keep a fix in their journals until
    # it is committed, so what a longer outage deletes here is resent.
    Topic("driver-pos", 12, 2 * DAY_MS, retention_bytes=2048 * MIB),
    Topic("driver-status", 3, None),
    Topic("tracking-updates", 6, 7 * DAY_MS),
    # Transient: the next fix replaces a lost one. A record holds up to 20,000 positions.
    Topic("tracking-positions", 3, HOUR_MS, retention_bytes=256 * MIB, max_message_bytes=4 * MIB),
    Topic("series", 3, 2 * DAY_MS, retention_bytes=512 * MIB),
    Topic("dead-letter", 3, 30 * DAY_MS),
    Topic("streams", 3, DAY_MS, retention_bytes=256 * MIB),  # published by staff over HTTP
)


def create_topics(
    bootstrap_servers: str, *, topics: Sequence[Topic] = TOPICS, replication_factor: int = 1
) -> list[str]:
    """Create the topics that are missing and return their names. Raises TopicNotCreated."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 2})
    new_topics = [
        NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=replication_factor,
            config=topic.config(),
        )
        for topic in topics
    ]
    created = []
    answers = admin.create_topics(
        new_topics, operation_timeout=ANSWER_TIMEOUT_S, request_timeout=ANSWER_TIMEOUT_S
    )
    for name, answer in answers.items():
        try:
            answer.result()
            created.append(name)
        except KafkaException as exc:
            if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicNotCreated(f"Kafka did not create the topic {name}: {exc}") from exc
    return created


def missing_topics(bootstrap_servers: str, timeout_s: float = 2.0) -> set[str]:
    """Return the missing topics, or all of them if Kafka does not answer."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    try:
        known = set(admin.list_topics(timeout=timeout_s).topics)
    except KafkaException:
        known = set()
    return {topic.name for topic in TOPICS} - known


def main() -> int:
    """Create the topics, retrying for up to 60 s until Kafka answers."""
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
    factor = int(os.environ.get("KAFKA_REPLICATION_FACTOR", "1"))
    deadline = time.monotonic() + 60
    while True:
        try:
            created = create_topics(servers, replication_factor=factor)
        except TopicNotCreated as exc:
            if time.monotonic() > deadline:
                print(f"topics: {exc}", file=sys.stderr)
                return 1
            time.sleep(1)
            continue
        print(f"topics: created {', '.join(created) or 'none, all exist'}", file=sys.stderr)
        return 0


if __name__ == "__main__":
    sys.exit(main())
