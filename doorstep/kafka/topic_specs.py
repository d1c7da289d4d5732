"""The Kafka topics: partitions, retention and whose clock stamps their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)
from confluent_kafka.cimpl import NewTopic

from doorstep.errors import Unavailable
from doorstep.kafka.access import KafkaAccess

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
    is_stamped_by_broker: bool = False  # else by the producer, who could choose the instant

    def config(self) -> dict[str, str]:
        """Return the topic's Kafka configuration."""
        shared = {
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": (
                "LogAppendTime" if self.is_stamped_by_broker else "CreateTime"
            ),
        }
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
    # Its timestamp is a fix's arrival, which decides what is too late: the broker's clock alone.
    Topic("driver-pos", 12, 2 * DAY_MS, retention_bytes=2048 * MIB, is_stamped_by_broker=True),
    # What unmodified phone apps send: the same key, partitions and rules, but another format.
    Topic("phone-pos", 12, 2 * DAY_MS, retention_bytes=512 * MIB, is_stamped_by_broker=True),
    Topic("driver-status", 3, None),
    Topic("tracking-updates", 6, 7 * DAY_MS),
    # Transient: the next fix replaces a lost one. A record holds up to 20,000 positions.
    Topic("tracking-positions", 3, HOUR_MS, retention_bytes=256 * MIB, max_message_bytes=4 * MIB),
    Topic("series", 3, 2 * DAY_MS, retention_bytes=512 * MIB, is_stamped_by_broker=True),
    Topic("dead-letter", 3, 30 * DAY_MS),
    Topic("streams", 3, DAY_MS, retention_bytes=256 * MIB),  # published by staff over HTTP
)


def create_topics(
    kafka: KafkaAccess, *, topics: Sequence[Topic] = TOPICS, replication_factor: int = 1
) -> list[str]:
    """Create the missing topics, set the clock of the others, and return the created ones' names.

    Raises TopicNotCreated.
    """
    admin = AdminClient({**kafka.as_librdkafka_dict(), "log_level": 2})
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
    _set_clocks(admin, [topic for topic in topics if topic.name not in created])
    return created


def _set_clocks(admin: AdminClient, topics: Sequence[Topic]) -> None:
    """Set `message.timestamp.type` of existing topics: an earlier release left it to producers."""
    resources = [
        ConfigResource(
            ConfigResource.Type.TOPIC,
            topic.name,
            incremental_configs=[
                ConfigEntry(
                    "message.timestamp.type",
                    topic.config()["message.timestamp.type"],
                    incremental_operation=AlterConfigOpType.SET,
                )
            ],
        )
        for topic in topics
    ]
    if not resources:
        return
    answers = admin.incremental_alter_configs(resources, request_timeout=ANSWER_TIMEOUT_S)
    for resource, answer in answers.items():
        try:
            answer.result()
        except KafkaException as exc:
            raise TopicNotCreated(f"Kafka did not change {resource.name}: {exc}") from exc


def missing_topics(kafka: KafkaAccess, timeout_s: float = 2.0) -> set[str]:
    """Return the missing topics, or all of them if Kafka does not answer."""
    admin = AdminClient({**kafka.as_librdkafka_dict(), "log_level": 0})
    try:
        known = set(admin.list_topics(timeout=timeout_s).topics)
    except KafkaException:
        known = set()
    return {topic.name for topic in TOPICS} - known
