"""Kafka on /observe: the lag of each consumer group, by topic and partition, as it is."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from doorstep.kafka.access_control import ADMIN
from ops.servers.waiting import wait_until
from ops.stack.stack import Stack
from tests.integration.http_services import make_fix

GROUPS = {
    "driver-events": "driver-pos",
    "driver-events-phones": "phone-pos",
    "driver-events-series": "series",
}
# Records of each (topic, partition) that are published while driver_events is away.
PUBLISHED = {("driver-pos", 3): 5, ("driver-pos", 7): 1, ("series", 1): 2}


@pytest.fixture
def admin(stack: Stack) -> Iterator[httpx.Client]:
    """The launcher's own token, which is an admin's."""
    headers = {"Authorization": f"Bearer {stack.paths.staff_token()}"}
    url = stack.addresses.tracking_api_url
    with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        yield client


def groups_of(admin: httpx.Client) -> dict[str, dict[str, Any]]:
    answer = admin.get("/observe/kafka").raise_for_status().json()
    return {one["name"]: one for one in answer["groups"]}


def lags_of(groups: dict[str, dict[str, Any]]) -> dict[tuple[str, int], int]:
    """The lag of driver_events' groups, by topic and partition."""
    return {
        (one["topic"], one["partition"]): one["lag"]
        for name in GROUPS
        for one in groups[name]["offsets"]
    }


def publish(stack: Stack) -> None:
    """Write valid records past the bridge, into partitions that the test chooses."""
    driver_id, source_id = f"lag-{uuid4().hex[:8]}", f"box-{uuid4().hex[:8]}"
    stack.add_drivers([driver_id])
    access = stack.kafka_access(ADMIN).as_librdkafka_dict()
    producer = Producer({**access, "log_level": 0})
    for (topic, partition), count in PUBLISHED.items():
        for seq in range(1, count + 1):
            key = driver_id if topic == "driver-pos" else f"{source_id}/level"
            fix = make_fix(boot=f"p{partition}", seq=seq)
            value: Any = fix if topic == "driver-pos" else 4.5
            producer.produce(topic, json.dumps(value), key, partition=partition)
    assert producer.flush(20) == 0


def test_kafka_view__driver_events_stopped_and_started__shows_its_lag_and_none(
    stack: Stack, admin: httpx.Client
) -> None:
    wait_until(lambda: set(lags_of(groups_of(admin)).values()) == {0}, 60, "no lag before")
    stack.stop_process("driver_events")
    try:
        publish(stack)
        wait_until(lambda: sum(lags_of(groups_of(admin)).values()) == 8, 30, "the lag")
        wait_until(lambda: groups_of(admin)["driver-events"]["members"] == 0, 60, "no member")
        groups = groups_of(admin)
    finally:
        stack.start_process("driver_events")
    assert {at: lag for at, lag in lags_of(groups).items() if lag} == PUBLISHED
    for name, topic in GROUPS.items():  # Kafka has forgotten groups without members
        assert groups[name]["kept_in"] == "database"
        assert groups[name]["state"] == "EMPTY"
        assert {one["topic"] for one in groups[name]["offsets"]} == {topic}

    wait_until(lambda: set(lags_of(groups_of(admin)).values()) == {0}, 60, "no lag after")
    stack.wait_ready()
    wait_until(lambda: groups_of(admin)["driver-events"]["members"] == 1, 60, "its member")
    assert groups_of(admin)["driver-events"]["state"] == "STABLE"


def test_kafka_view__group_that_commits_in_kafka__has_its_lag(
    stack: Stack, admin: httpx.Client
) -> None:
    name = f"reader-{uuid4().hex[:8]}"
    access = stack.kafka_access(ADMIN).as_librdkafka_dict()
    consumer = Consumer({**access, "group.id": name, "log_level": 0})
    try:
        at = TopicPartition("driver-status", 2, 0)
        high = consumer.get_watermark_offsets(at, timeout=20)[1]
        consumer.commit(offsets=[at], asynchronous=False)
    finally:
        consumer.close()
    wait_until(lambda: name in groups_of(admin), 30, "the group")
    group = groups_of(admin)[name]
    assert group["kept_in"] == "kafka"
    assert group["offsets"] == [
        {"topic": "driver-status", "partition": 2, "committed": 0, "lag": high}
    ]


def test_kafka_view__partitions__have_leader_replicas_and_offsets(admin: httpx.Client) -> None:
    answer = admin.get("/observe/kafka").raise_for_status().json()
    assert len(answer["nodes"]) == 1
    topics = {one["name"]: one for one in answer["topics"]}
    assert len(topics["driver-pos"]["partitions"]) == 12
    for topic in topics.values():
        for one in topic["partitions"]:
            assert one["leader"] == answer["nodes"][0]
            assert (one["replicas"], one["in_sync"], one["out_of_sync"]) == (1, 1, [])
            assert 0 <= one["low"] <= one["high"]
    assert (answer["topics_left_out"], answer["groups_left_out"]) == (0, 0)


def test_kafka_view__kafka_does_not_answer__is_503_and_returns(
    stack: Stack, admin: httpx.Client
) -> None:
    kafka = stack.pid_of("kafka")
    os.kill(kafka, signal.SIGSTOP)
    try:
        wait_until(lambda: admin.get("/observe/kafka").status_code == 503, 30, "503")
        answer = admin.get("/observe/kafka")
        assert answer.json()["type"] == "/problems/kafka-unavailable"
    finally:
        os.kill(kafka, signal.SIGCONT)
    wait_until(lambda: admin.get("/observe/kafka").status_code == 200, 60, "an answer")
    stack.wait_ready()
