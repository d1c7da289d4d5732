"""Reads the state of Kafka: nodes, topics, offsets and consumer groups, within a deadline."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from doorstep.errors import KafkaUnavailable

DEADLINE_S = 7.0  # of all steps; below the 10 s for which the page waits
STEP_S = 2.5  # a request; a node that is suspended holds up two of four steps
ANSWER_S = STEP_S + 0.5  # librdkafka says that a request failed after the time it was given
MAX_PARTITIONS = 1000  # the project's topics have 45, Kafka's own 50
MAX_GROUPS = 50

At = tuple[str, int]
"""A topic's name and a partition."""
Offsets = Mapping[At, int]
Key = TypeVar("Key")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class PartitionState:
    """Where a partition is. `low` and `high` are None if its leader does not answer."""

    partition: int
    leader: int  # -1: none
    replicas: Sequence[int]
    in_sync: Sequence[int]
    low: int | None
    high: int | None


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic and its partitions, in order."""

    name: str
    topic_id: str
    partitions: Sequence[PartitionState]


@dataclass(frozen=True, slots=True)
class GroupState:
    """A consumer group that Kafka lists. `committed` are the offsets that it keeps in Kafka."""

    name: str
    state: str
    members: int
    committed: Offsets


@dataclass(frozen=True, slots=True)
class KafkaState:
    """All that was read. What exceeds the bounds is only counted."""

    cluster_id: str
    nodes: Sequence[int]
    topics: Sequence[TopicState]
    groups: Sequence[GroupState]
    topics_left_out: int = 0
    groups_left_out: int = 0


class _Deadline:
    def __init__(self, within_s: float) -> None:
        self._at = time.monotonic() + within_s

    def left_s(self, at_most_s: float = STEP_S) -> float:
        """Return how long the next step may take. Raises KafkaUnavailable at the end."""
        left_s = min(at_most_s, self._at - time.monotonic())
        if left_s <= 0:
            raise KafkaUnavailable(f"Kafka did not answer within {DEADLINE_S:.0f} s")
        return left_s


def read_state(config: Mapping[str, Any]) -> KafkaState:
    """Read all of it with a client of its own. Raises KafkaUnavailable.

    A partition without a leader, and a group whose coordinator is away, are read as unknown.
    """
    try:
        return _read_state(AdminClient(dict(config)), _Deadline(DEADLINE_S))
    except (KafkaException, TimeoutError) as exc:
        raise KafkaUnavailable from exc


def _read_state(admin: AdminClient, deadline: _Deadline) -> KafkaState:
    metadata = admin.list_topics(timeout=deadline.left_s())
    counts = {name: len(topic.partitions) for name, topic in metadata.topics.items()}
    names = within_bounds(counts)
    described = admin.describe_topics(TopicCollection(names), request_timeout=deadline.left_s())
    about = _results(described, deadline)
    led = [
        TopicPartition(name, one.id)
        for name, topic in about.items()
        for one in topic.partitions
        if one.leader is not None
    ]
    offsets, groups_left_out, groups = _read_offsets_and_groups(admin, led, deadline)
    low, high = offsets
    topics = [
        TopicState(
            name,
            str(topic.topic_id),
            [
                PartitionState(
                    one.id,
                    one.leader.id if one.leader is not None else -1,
                    sorted(node.id for node in one.replicas),
                    sorted(node.id for node in one.isr),
                    low.get((name, one.id)),
                    high.get((name, one.id)),
                )
                for one in sorted(topic.partitions, key=lambda it: it.id)
            ],
        )
        for name, topic in sorted(about.items())
    ]
    return KafkaState(
        str(metadata.cluster_id),
        sorted(metadata.brokers),
        topics,
        groups,
        len(counts) - len(names),
        groups_left_out,
    )


def within_bounds(counts: Mapping[str, int]) -> list[str]:
    """Return the topics whose partitions are asked for: Kafka's own come last."""
    names: list[str] = []
    total = 0
    for name in sorted(counts, key=lambda it: (it.startswith("__"), it)):
        total += counts[name]
        if total > MAX_PARTITIONS:
            break
        names.append(name)
    return names


def _read_offsets_and_groups(
    admin: AdminClient, partitions: Sequence[TopicPartition], deadline: _Deadline
) -> tuple[tuple[Offsets, Offsets], int, list[GroupState]]:
    """Ask for ends and groups at once: a node that does not answer holds both for one step."""
    step_s = deadline.left_s()
    asked = [
        admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=step_s)
        if partitions
        else {}
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
    ]
    listing = admin.list_consumer_groups(request_timeout=step_s)
    listed = listing.result(deadline.left_s(ANSWER_S)).valid
    names = sorted(one.group_id for one in listed)
    groups = _read_groups(admin, names[:MAX_GROUPS], deadline)
    low, high = (
        {(at.topic, at.partition): one.offset for at, one in _results(them, deadline).items()}
        for them in asked
    )
    return (low, high), len(names[MAX_GROUPS:]), groups


def _read_groups(admin: AdminClient, names: Sequence[str], deadline: _Deadline) -> list[GroupState]:
    if not names:
        return []
    step_s = deadline.left_s()
    described = admin.describe_consumer_groups(list(names), request_timeout=step_s)
    asked = {
        name: admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(name)], request_timeout=step_s
        )[name]
        for name in names
    }
    about, offsets = _results(described, deadline), _results(asked, deadline)
    return [
        GroupState(
            name,
            about[name].state.name if name in about else "UNKNOWN",
            len(about[name].members) if name in about else 0,
            _committed(offsets[name].topic_partitions) if name in offsets else {},
        )
        for name in names
    ]


def _committed(partitions: Iterable[TopicPartition] | None) -> Offsets:
    found = partitions or ()
    return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}


def _results(asked: Mapping[Key, Future[Answer]], deadline: _Deadline) -> dict[Key, Answer]:
    """Wait for the answers, and leave out errors. Raises one if there is nothing else."""
    found: dict[Key, Answer] = {}
    failure: Exception | None = None
    for key, answer in asked.items():
        try:
            found[key] = answer.result(deadline.left_s(ANSWER_S))
        except (KafkaException, TimeoutError) as exc:
            failure = exc
    if failure is not None and not found:
        raise failure
    return found
