"""Kafka: killed, frozen, with its topic recreated, and with records deleted unread."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
)

from doorstep.kafka.topic_specs import TOPICS, create_topics
from ops.servers.waiting import wait_until
from ops.stack import probes
from tests.faults.alerts import NO_PROMTOOL, Scraper, is_firing
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome
from tests.faults.load_process import Published

FROZEN_S = 120.0
AWAY_S = 20.0
IN_PIPE_S = 2.0  # driver_events may still commit and ack what it has read from Kafka
CATCH_UP_S = 5.0
TOPIC = "driver-pos"
KEPT_MS = 120_000
# Kafka deletes whole segments, and each is as long as this. The broker looks for them every
# RETENTION_CHECK_MS.
SEGMENT_MS = 10_000
DELETED_WITHIN_S = 300.0
UNREAD_S = 10.0  # more is deleted
CONSUMED_WITHIN_S = 600.0  # what has piled up meanwhile
REFILLED_WITHIN_S = 600.0
SCRAPES_AFTER = 3
DELETED = "doorstep_driver_events_deleted_unread_total"
ALERT = "RecordsDeletedUnread"


def kill(env: FaultEnvironment) -> Outcome:
    """Kill Kafka, and keep it stopped for AWAY_S."""
    env.kill("kafka")
    at_s = time.time()
    env.stack.stop_process("kafka")  # or supervisord would restart it at once
    early, first = acked_during(env, AWAY_S)
    env.stack.start_process("kafka")
    return _back(env, time.monotonic(), at_s, early, first)


def freeze(env: FaultEnvironment) -> Outcome:
    """Freeze Kafka for two minutes with all connections open."""
    at_s = time.time()
    with env.frozen("kafka"):
        early, first = acked_during(env, FROZEN_S)
    return _back(env, time.monotonic(), at_s, early, first)


def acked_during(env: FaultEnvironment, seconds: float) -> tuple[int, int]:
    """Count the fixes published from now on: acknowledged without Kafka, and in all."""
    time.sleep(IN_PIPE_S)
    before = env.load.published()
    began = time.monotonic()
    acked = 0
    while time.monotonic() - began < seconds:
        time.sleep(1)
        acked = max(acked, acked_since(env, before))
    return acked, sum(env.load.published().values()) - sum(before.values())


def acked_since(env: FaultEnvironment, before: Published) -> int:
    """Count the acknowledged fixes that the devices published after `before`."""
    published = env.load.published()
    waiting = env.load.unacknowledged(published) - env.load.unacknowledged(before)
    new = sum(seq - before.get(one, 0) for one, seq in published.items())
    return new - waiting


def _back(env: FaultEnvironment, since: float, at_s: float, acked: int, published: int) -> Outcome:
    """Wait for Kafka, then for the stack, and report the responses of the APIs meanwhile."""
    while not probes.kafka_is_ready(env.addresses.kafka, env.kafka):
        time.sleep(0.1)
    back, back_s = time.monotonic(), time.time()
    recovery_s = env.wait_healthy(timeout_s=180, since=since)
    catch_up_s = recovery_s - (back - since)
    responses = Counter(
        f"{what} {status}"
        for what in ("track", "patch")
        for status, _took_s in env.load.responses(what, at_s, back_s)
    )
    all_ok = set(responses) == {"track 200", "patch 200"}
    counts = ", ".join(f"{times} x {what}" for what, times in sorted(responses.items()))
    seen = f"{acked} of {published:,} fixes acked meanwhile; {counts}; "
    seen += f"live {max(0.0, catch_up_s):.1f} s after its restart"
    return Outcome(seen, recovery_s, ok=not acked and all_ok and catch_up_s <= CATCH_UP_S)


def recreate_topic(env: FaultEnvironment) -> Outcome:
    """Delete and recreate the topic: records that only Kafka had are lost there."""
    recovery_s = _recreate(env, _admin(env))
    rejoins = env.log("driver_events").count("topic_recreated")
    return Outcome(f"detected {rejoins} times by the topic's id", recovery_s, ok=rejoins > 0)


def _recreate(env: FaultEnvironment, admin: AdminClient) -> float:
    at = time.monotonic()
    admin.delete_topics([TOPIC], operation_timeout=20)[TOPIC].result(30)
    topics = [one for one in TOPICS if one.name == TOPIC]
    while TOPIC not in create_topics(env.kafka, topics=topics):
        time.sleep(0.2)
    return env.wait_healthy(timeout_s=120, since=at)


def delete_unread(env: FaultEnvironment) -> Outcome:
    """Stop driver_events for longer than Kafka keeps its topic."""
    admin = _admin(env)
    _recreate(env, admin)  # Kafka would keep records that a clock set an hour ahead has dated
    before = env.metric("driver_events", DELETED)
    with Scraper(env, "driver_events", DELETED) as scraper, _kept_for(admin, KEPT_MS, SEGMENT_MS):
        with env.shut_down("driver_events"):
            away_at = time.monotonic()
            read = _offsets(admin, OffsetSpec.latest())  # type: ignore[no-untyped-call]
            wait_until(
                lambda: _all_deleted(admin, read),
                DELETED_WITHIN_S,
                "Kafka has deleted some",
                poll_s=1.0,
            )
            time.sleep(UNREAD_S)
            published = env.load.published()
            calm = len(scraper.scrapes)
        since = time.monotonic()
        recovery_s = env.wait_healthy(timeout_s=CONSUMED_WITHIN_S, since=since)
        wait_until(
            lambda: not env.load.unacknowledged(published), REFILLED_WITHIN_S, "all are resent"
        )
        refilled_s = time.monotonic() - since
        time.sleep(SCRAPES_AFTER * scraper.every_s)
        counted = env.metric("driver_events", DELETED)  # of a new process: from 0
    was_firing = is_firing(ALERT, scraper.scrapes[:calm], scraper.every_s)
    fires = is_firing(ALERT, scraper.scrapes, scraper.every_s)
    seen = (
        f"away for {since - away_at:.0f} s; {counted:.0f} records counted as deleted; {ALERT} "
        f"{'fires' if fires else 'DOES NOT FIRE'}{' BEFORE, TOO' if was_firing else ''}; all fixes "
        f"resent after {refilled_s:.1f} s"
    )
    return Outcome(seen, recovery_s, ok=counted > 0 and before == 0 and fires and not was_firing)


@contextlib.contextmanager
def _kept_for(admin: AdminClient, kept_ms: int, segment_ms: int) -> Iterator[None]:
    """Let Kafka keep the topic's records only for so long during the block."""
    [topic] = [one for one in TOPICS if one.name == TOPIC]
    before = topic.config()["retention.ms"]
    _set_topic(admin, {"retention.ms": str(kept_ms), "segment.ms": str(segment_ms)})
    try:
        yield
    finally:
        _set_topic(admin, {"retention.ms": before, "segment.ms": None})


def _set_topic(admin: AdminClient, values: Mapping[str, str | None]) -> None:
    """Set the topic's configuration; None: as the broker's."""
    entries = [
        ConfigEntry(
            name,
            value or "",
            incremental_operation=AlterConfigOpType.SET if value else AlterConfigOpType.DELETE,
        )
        for name, value in values.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, TOPIC, incremental_configs=entries)
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result(30)


def _offsets(admin: AdminClient, which: OffsetSpec) -> dict[int, int]:
    """Return the first or last offset of each partition of the topic."""
    [topic] = [one for one in TOPICS if one.name == TOPIC]
    wanted = {TopicPartition(TOPIC, one): which for one in range(topic.partitions)}
    answers = admin.list_offsets(wanted)
    return {one.partition: answer.result(30).offset for one, answer in answers.items()}


def _all_deleted(admin: AdminClient, read: Mapping[int, int]) -> bool:
    """Return whether records after those that were read are deleted in each partition."""
    first = _offsets(admin, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
    return all(first[one] > offset for one, offset in read.items())


def _admin(env: FaultEnvironment) -> AdminClient:
    """Return a client, which ends its requests when it is no longer referenced."""
    return AdminClient({**env.kafka.as_librdkafka_dict(), "log_level": 2})


FAULTS = (
    Fault(
        9, "kill -9 Kafka",
        "no MQTT fix acked meanwhile, PATCH and GET /track 200, live <= 5 s after, T <= 60 s",
        60, False, kill,
    ),
    Fault(
        10, "SIGSTOP Kafka 120 s",
        "no MQTT fix acked meanwhile, PATCH and GET /track 200, live <= 5 s after, T <= 60 s",
        60, False, freeze,
    ),
    Fault(12, "topic recreated", "consuming again <= 60 s", 60, False, recreate_topic),
    Fault(
        39, "driver_events away for longer than Kafka keeps",
        "counted, alarmed, refilled by the journals",
        None, False, delete_unread, not_here=NO_PROMTOOL,
    ),
)  # fmt: skip
