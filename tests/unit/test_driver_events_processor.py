"""The loop. The seams replaced: a source that gives messages, a recorder that may fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from doorstep.errors import OffsetLost, StoreUnavailable
from driver_events.batch import Batch, Verdict, judge
from driver_events.processor import Processor
from driver_events.recorder import DataError
from driver_events.source import KafkaUnavailable, TopicIdentity

TOPIC = TopicIdentity("cluster", "topic")


class FakeMessage:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def key(self) -> bytes:
        return b"d1"

    def value(self) -> bytes:
        return b'{"boot":"b1","seq":%d,"fix_at":1790000000000,"lat_deg":1,"lon_deg":1}' % (
            self._offset + 1
        )

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_790_000_000_000

    def offset(self) -> int:
        return self._offset


class FakeSource:
    """One partition with ten messages."""

    def __init__(self) -> None:
        self.position = -1
        self.assigned: Sequence[int] = [0]
        self.needs_opening = True
        self.events: list[str] = []
        self.kafka_is_up = True

    def identify(self) -> TopicIdentity:
        if not self.kafka_is_up:
            raise KafkaUnavailable
        return TOPIC

    def open(self, offsets: Mapping[int, int]) -> None:
        self.position = offsets[0]
        self.needs_opening = False
        self.events.append(f"open {self.position}")

    def shut(self) -> None:
        self.needs_opening = True
        self.events.append("shut")

    def rejoin(self, why: str) -> None:
        self.needs_opening = True
        self.events.append(f"rejoin {why}")

    def take(self, most: int, timeout_s: float) -> list[FakeMessage]:
        if self.needs_opening:
            return []
        return [FakeMessage(n) for n in range(self.position, 10)][:most]

    def moves_of(self, messages: Sequence[FakeMessage]) -> dict[int, tuple[int, int]]:
        return {0: (self.position, messages[-1].offset() + 1)}

    def advance(self, moves: Mapping[int, tuple[int, int]]) -> None:
        self.position = moves[0][1]


class FakeRecorder:
    """Keeps offsets like the database, and fails as it is told to."""

    def __init__(self) -> None:
        self.offset = 0
        self.failures: list[Exception] = []
        self.poison: int | None = None
        self.batches: list[tuple[int, int]] = []
        self.letters: list[str] = []

    def open_offsets(self, topic: TopicIdentity, partitions: Sequence[int]) -> dict[int, int]:
        self._fail()
        return {0: self.offset}

    def record(self, batch: Batch, topic: TopicIdentity, moves: Mapping[int, Any]) -> Verdict:
        self._fail()
        start, end = moves[0]
        if start != self.offset:
            raise OffsetLost
        if self.poison is not None and any(row[3] == self.poison for row in batch.rows):
            raise DataError("no such number")
        self.offset = end
        self.batches.append((start, end))
        verdict = judge(batch, [])
        self.letters += [letter.reason for letter in verdict.letters]
        return verdict

    def discard(self) -> None:
        pass

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


class Scene:
    def __init__(self, most: int = 100) -> None:
        self.source = FakeSource()
        self.recorder = FakeRecorder()
        self.followed: list[Verdict] = []
        self.processor = Processor(
            self.source,  # type: ignore[arg-type]
            self.recorder,
            self,
            max_batch_fixes=most,
            max_batch_age_s=0.001,
        )

    def follow(self, verdict: Verdict) -> None:
        self.followed.append(verdict)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_step__messages__are_one_batch_and_one_commit(scene: Scene) -> None:
    scene.processor.step()
    assert scene.recorder.batches == [(0, 10)]
    assert scene.followed[0].outcomes == {"committed": 10}


def test_step__the_database_is_away__waits_and_goes_on_where_the_database_says(
    scene: Scene,
) -> None:
    scene.processor.step()
    scene.source.position = scene.recorder.offset = 4
    scene.recorder.failures = [StoreUnavailable(), StoreUnavailable()]
    for _ in range(4):
        scene.processor.step()
    assert scene.source.events == ["open 0", "shut", "shut", "open 4"]
    assert scene.recorder.batches == [(0, 10), (4, 10)]
    assert scene.recorder.letters == []


def test_step__the_commits_answer_got_lost__skips_and_repeats_nothing(scene: Scene) -> None:
    scene.processor.step()
    scene.source.position = 4  # sent, committed up to 10, and then the connection broke
    scene.recorder.failures = [StoreUnavailable()]
    for _ in range(3):
        scene.processor.step()
    assert scene.source.events == ["open 0", "shut", "open 10"]
    assert scene.recorder.batches == [(0, 10)]


def test_step__another_consumer_moved_the_offset__rejoins(scene: Scene) -> None:
    scene.processor.step()
    scene.source.position = 2
    scene.processor.step()
    assert scene.source.events[-1] == "rejoin offset_lost"
    scene.processor.step()
    assert scene.source.events[-1] == "open 10"


def test_step__kafka_is_away__waits(scene: Scene) -> None:
    scene.source.kafka_is_up = False
    scene.processor.step()
    assert scene.recorder.batches == []
    scene.source.kafka_is_up = True
    scene.processor.step()
    assert scene.recorder.batches == [(0, 10)]


def test_step__a_row_that_the_database_cannot_take__is_buried_alone(scene: Scene) -> None:
    scene.recorder.poison = 7
    scene.processor.step()
    assert scene.recorder.letters == ["refused_by_database"]
    assert scene.recorder.offset == 10
    assert sum(verdict.outcomes["committed"] for verdict in scene.followed) == 9


def test_step__more_rows_than_a_batch_holds__are_several_commits() -> None:
    scene = Scene(most=4)
    for _ in range(3):
        scene.processor.step()
    assert scene.recorder.batches == [(0, 4), (4, 8), (8, 10)]
