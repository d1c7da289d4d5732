"""The topics that the stack creates in Kafka."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from doorstep.kafka.access import KafkaAccess
from doorstep.kafka.topic_specs import TOPICS, create_topics, missing_topics
from ops.servers.kafka import KafkaServer


def test_create_topics__twice__creates_them_once_as_specified(kafka_broker: KafkaServer) -> None:
    servers = kafka_broker.access

    assert sorted(create_topics(servers)) == sorted(topic.name for topic in TOPICS)
    assert create_topics(servers) == []

    admin = AdminClient(servers.as_librdkafka_dict())
    known = admin.list_topics(timeout=10).topics
    for topic in TOPICS:
        assert len(known[topic.name].partitions) == topic.partitions
        resource = ConfigResource(ResourceType.TOPIC, topic.name)
        settings = admin.describe_configs([resource])[resource].result(10)
        assert {name: settings[name].value for name in topic.config()} == topic.config()


def test_topics__after_kill_9__are_still_there(kafka_broker: KafkaServer) -> None:
    create_topics(kafka_broker.access)
    kafka_broker.kill()

    assert missing_topics(kafka_broker.access, 0.5) == {topic.name for topic in TOPICS}
    kafka_broker.start()
    assert create_topics(kafka_broker.access) == []


def test_unknown_topic__is_an_error_and_not_created(kafka_broker: KafkaServer) -> None:
    failures: list[KafkaError] = []
    producer = Producer(
        {
            **kafka_broker.access.as_librdkafka_dict(),
            "topic.metadata.propagation.max.ms": 0,
            "message.timeout.ms": 3000,
        }
    )
    try:
        producer.produce("driver-poss", b"x", on_delivery=lambda error, _: failures.append(error))
        producer.flush(10)
    except KafkaException as exc:
        failures.append(exc.args[0])

    assert failures
    assert failures[0].code() in (KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART)


def test_create_topics__no_broker__is_an_error_that_names_it() -> None:
    assert missing_topics(KafkaAccess("127.0.0.1:1"), 0.2) == {topic.name for topic in TOPICS}
    with pytest.raises(Exception, match="did not create"):
        create_topics(KafkaAccess("127.0.0.1:1"), topics=TOPICS[:1])
