"""Kafka's state as an answer: where offsets are kept, lag, and the bounds of what is asked.

`read_state` is replaced where a test counts its calls; no Kafka listens at the address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from doorstep.errors import KafkaUnavailable, StoreUnavailable, TooManyRequests
from doorstep.kafka.access import KafkaAccess
from tracking_api.observe import kafka_view
from tracking_api.observe.kafka_answer import answer_of
from tracking_api.observe.kafka_state import (
    MAX_PARTITIONS,
    GroupState,
    KafkaState,
    PartitionState,
    TopicState,
    within_bounds,
)
from tracking_api.observe.kafka_view import MAX_READS, KafkaView
from tracking_api.observe.queries import StoredOffsets
from tracking_api.observe.schemas import Group, KafkaAnswer

STORED = {"driver-events": "driver-pos"}
NOWHERE = KafkaAccess("127.0.0.1:1")


class MemoryOffsets:
    """The store of offsets in memory."""

    def __init__(self, offsets: StoredOffsets | None = None) -> None:
        self.offsets = offsets
        self.asked: list[tuple[str, Sequence[str]]] = []

    async def read_stored_offsets(self, cluster_id: str, topic_ids: Sequence[str]) -> StoredOffsets:
        self.asked.append((cluster_id, topic_ids))
        if self.offsets is None:
            raise StoreUnavailable
        return self.offsets


def make_partition(
    number: int, low: int | None = 2, high: int | None = 10, in_sync: Sequence[int] = (1, 2, 3)
) -> PartitionState:
    return PartitionState(number, in_sync[0] if in_sync else -1, (1, 2, 3), in_sync, low, high)


def make_state(*groups: GroupState, partitions: Sequence[PartitionState] = ()) -> KafkaState:
    partitions = partitions or (make_partition(0), make_partition(1))
    topic = TopicState("driver-pos", "id-1", partitions)
    return KafkaState("cluster", (1, 2, 3), (topic,), groups)


def make_answer(
    state: KafkaState, stored: StoredOffsets, groups: Mapping[str, str] = STORED
) -> KafkaAnswer:
    return answer_of(state, frozenset(), groups, stored)


def lags_of(group: Group) -> list[int | None]:
    return [one.lag for one in group.offsets]


def test_answer__group_of_the_database__has_its_offsets_and_kafkas_members() -> None:
    state = make_state(GroupState("driver-events", "STABLE", 2, {}))
    [group] = make_answer(state, {("id-1", 0): 4, ("id-1", 1): 10}).groups
    assert (group.kept_in, group.state, group.members) == ("database", "STABLE", 2)
    assert lags_of(group) == [6, 0]


def test_answer__group_of_the_database_that_kafka_forgot__is_empty_with_lag() -> None:
    [group] = make_answer(make_state(), {("id-1", 0): 4}).groups
    assert (group.name, group.state, group.members) == ("driver-events", "EMPTY", 0)
    assert [one.committed for one in group.offsets] == [4, None]
    assert lags_of(group) == [6, 8]  # nothing committed: from the first record on


def test_answer__recreated_topic__has_no_offsets_of_the_old_one() -> None:
    assert make_answer(make_state(), {("id-0", 0): 4}).groups == []


def test_answer__group_that_commits_in_kafka__keeps_those_offsets() -> None:
    committed = {("driver-pos", 1): 7}
    state = make_state(GroupState("driver-events-patch", "EMPTY", 0, committed))
    [group] = make_answer(state, {}).groups
    assert group.kept_in == "kafka"
    assert lags_of(group) == [3]


def test_answer__partition_without_a_leader__has_unknown_offsets_and_lag() -> None:
    state = make_state(partitions=[make_partition(0, None, None, ()), make_partition(1)])
    answer = make_answer(state, {("id-1", 0): 4, ("id-1", 1): 5})
    assert lags_of(answer.groups[0]) == [None, 5]
    away = answer.topics[0].partitions[0]
    assert (away.leader, away.in_sync, away.out_of_sync) == (-1, 0, [1, 2, 3])


def test_answer__node_behind__is_named() -> None:
    state = make_state(partitions=[make_partition(0, in_sync=(3, 1))])
    [one] = make_answer(state, {}).topics[0].partitions
    assert (one.leader, one.replicas, one.in_sync, one.out_of_sync) == (3, 3, 2, [2])


def test_bounds__too_many_partitions__leave_out_whole_topics_and_kafkas_own_first() -> None:
    counts = {"__consumer_offsets": 50, "a": MAX_PARTITIONS - 12, "driver-pos": 12}
    assert within_bounds(counts) == ["a", "driver-pos"]
    assert within_bounds(counts | {"a": 1}) == ["a", "driver-pos", "__consumer_offsets"]


def make_view(offsets: MemoryOffsets) -> KafkaView:
    return KafkaView(NOWHERE, frozenset({"streams"}), STORED, offsets)


async def test_view__many_at_once__asks_kafka_and_the_database_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[object] = []

    def read_state(config: object) -> KafkaState:
        calls.append(config)
        return make_state()

    monkeypatch.setattr(kafka_view, "read_state", read_state)
    offsets = MemoryOffsets({("id-1", 0): 4})
    view = make_view(offsets)
    answers = await asyncio.gather(*(view.describe() for _ in range(5)))
    assert len(calls) == 1
    assert offsets.asked == [("cluster", ["id-1"])]
    assert [len(one.groups) for one in answers] == [1] * 5


async def test_view__kafka_is_away__is_asked_once_and_everyone_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[object] = []

    def read_state(config: object) -> KafkaState:
        calls.append(config)
        raise KafkaUnavailable

    monkeypatch.setattr(kafka_view, "read_state", read_state)
    view = make_view(MemoryOffsets({}))
    told = await asyncio.gather(*(view.describe() for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in told] == [KafkaUnavailable] * 5
    assert len(calls) == 1


async def test_view__database_is_away__says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_view, "read_state", lambda _: make_state())
    with pytest.raises(StoreUnavailable):
        await make_view(MemoryOffsets(None)).describe()


async def test_view__no_kafka_at_the_address__is_unavailable() -> None:
    with pytest.raises(KafkaUnavailable):
        await make_view(MemoryOffsets({})).describe()


async def test_messages__of_many_at_once__are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    view = make_view(MemoryOffsets({}))
    monkeypatch.setattr(view, "_reads", MAX_READS)
    with pytest.raises(TooManyRequests):
        await view.read_messages("streams", 0, 1)
