"""The answer about Kafka's topics and groups: lag by topic and partition. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tracking_api.observe.kafka_state import At, GroupState, KafkaState, Offsets, TopicState
from tracking_api.observe.queries import StoredOffsets
from tracking_api.observe.schemas import Group, GroupOffset, KafkaAnswer, Partition, Topic

Bounds = Mapping[At, tuple[int | None, int | None]]
ABSENT = GroupState("", "EMPTY", 0, {})  # Kafka forgets a group without members and offsets


def answer_of(
    state: KafkaState,
    readable: frozenset[str],
    stored_groups: Mapping[str, str],
    stored: StoredOffsets,
) -> KafkaAnswer:
    """Combine what Kafka and the database hold.

    A group of `stored_groups` is there as soon as either of them knows it.
    """
    topics = {one.name: one for one in state.topics}
    bounds: Bounds = {
        (topic.name, one.partition): (one.low, one.high)
        for topic in state.topics
        for one in topic.partitions
    }
    listed = {one.name: one for one in state.groups}
    groups: dict[str, Group] = {}
    for name, group in listed.items():
        groups[name] = _group(name, group, "kafka", group.committed, bounds)
    for name, topic_name in stored_groups.items():
        topic = topics.get(topic_name)
        offsets = _stored_offsets(topic, stored) if topic is not None else {}
        is_kept = any(one is not None for one in offsets.values())
        if is_kept or (name in listed and not listed[name].committed):
            groups[name] = _group(name, listed.get(name, ABSENT), "database", offsets, bounds)
    return KafkaAnswer(
        nodes=list(state.nodes),
        topics=[_topic(one, one.name in readable) for one in state.topics],
        groups=[groups[name] for name in sorted(groups)],
        topics_left_out=state.topics_left_out,
        groups_left_out=state.groups_left_out,
    )


def _stored_offsets(topic: TopicState, stored: StoredOffsets) -> Mapping[At, int | None]:
    """Return each partition's next offset: None before its first record was committed."""
    return {
        (topic.name, one.partition): stored.get((topic.topic_id, one.partition))
        for one in topic.partitions
    }


def _group(
    name: str,
    group: GroupState,
    kept_in: Literal["kafka", "database"],
    committed: Offsets | Mapping[At, int | None],
    bounds: Bounds,
) -> Group:
    offsets = [
        GroupOffset(
            topic=at[0],
            partition=at[1],
            committed=committed[at],
            lag=_lag(committed[at], *bounds.get(at, (None, None))),
        )
        for at in sorted(committed)
    ]
    return Group(
        name=name, state=group.state, members=group.members, kept_in=kept_in, offsets=offsets
    )


def _lag(committed: int | None, low: int | None, high: int | None) -> int | None:
    """Return how many records wait. Without a committed offset a group begins at the first one."""
    start = low if committed is None else committed
    return None if start is None or high is None else max(0, high - start)


def _topic(topic: TopicState, is_readable: bool) -> Topic:
    return Topic(
        name=topic.name,
        is_readable=is_readable,
        partitions=[
            Partition(
                partition=one.partition,
                low=one.low,
                high=one.high,
                leader=one.leader,
                replicas=len(one.replicas),
                in_sync=len(one.in_sync),
                out_of_sync=sorted(set(one.replicas) - set(one.in_sync)),
            )
            for one in topic.partitions
        ],
    )
