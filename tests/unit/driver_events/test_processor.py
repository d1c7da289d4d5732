"""The loop. The seams replaced: a source of messages, a recorder that may fail or take long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from typing import Any

import pytest

from doorstep.errors import OffsetLost, StoreUnavailable
from driver_events import processor
from driver_events.batch import Batch, BatchResult, classify
from driver_events.consumer import KafkaUnavailable, TopicIdentity
from driver_events.processor import Processor
from driver_events.recorder import DataError

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
    """One partition with ten messages, read from `position`; `_offset` is what is committed."""

    def __init__(self) -> None:
        self.position = -1
        self.end = 10
        self.assigned: Sequence[int] = [0]
        self.needs_opening = True
        self.events: list[str] = []
        self.kafka_is_up = True
        self.before_leaving: Callable[[], None]
        self.during_take: Callable[[], None] = lambda: None
        self._offset: int | None = None

    def identify(self) -> TopicIdentity:
        if not self.kafka_is_up:
            raise KafkaUnavailable
        return TOPIC

    def open(self, offsets: Mapping[int, int]) -> None:
        self.position = self._offset = offsets[0]
        self.needs_opening = False
        self.events.append(f"open {self.position}")

    def shut(self) -> None:
        self.needs_opening = True
        self._offset = None
        self.events.append("shut")

    def rejoin(self, why: str) -> None:
        self.leave()
        self.events.append(f"rejoin {why}")

    def leave(self) -> None:
        """Lose the partition in a rebalance, and get it back."""
        self.before_leaving()
        self._offset = None
        self.needs_opening = True

    def take(self, most: int, timeout_s: float) -> list[FakeMessage]:
        taken = [FakeMessage(n) for n in range(self.position, self.end)][:most]
        self.position += len(taken)
        self.during_take()
        return [] if self.needs_opening else taken

    def moves_of(self, messages: Sequence[FakeMessage]) -> dict[int, tuple[int, int]]:
        assert self._offset is not None
        return {0: (self._offset, messages[-1].offset() + 1)}

    def holds(self, moves: Mapping[int, tuple[int, int]]) -> bool:
        return self._offset is not None

    def advance(self, moves: Mapping[int, tuple[int, int]]) -> None:
        if self._offset is not None:
            self._offset = moves[0][1]

    def close(self) -> None:
        self.events.append("close")


class FakeRecorder:
    """Keeps offsets like the database, fails as it is told to, and takes as long as `busy`."""

    def __init__(self) -> None:
        self.offset = 0
        self.failures: list[Exception | None] = []  # of one call after another
        self.answer_gets_lost = False
        self.poison: int | None = None
        self.batches: list[tuple[int, int]] = []
        self.letters: list[str] = []
        self.is_open = threading.Event()
        self.is_open.set()
        self.at_once = 0
        self.discarded = False

    def open_offsets(self, topic: TopicIdentity, partitions: Sequence[int]) -> dict[int, int]:
        assert not self.at_once
        self._fail()
        return {0: self.offset}

    def record(self, batch: Batch, topic: TopicIdentity, moves: Mapping[int, Any]) -> BatchResult:
        self.at_once += 1
        assert self.at_once == 1
        try:
            assert self.is_open.wait(10)
            return self._record(batch, moves)
        finally:
            self.at_once -= 1

    def _record(self, batch: Batch, moves: Mapping[int, Any]) -> BatchResult:
        self._fail()
        start, end = moves[0]
        if start != self.offset:
            raise OffsetLost
        if self.poison is not None and any(row[3] == self.poison for row in batch.rows):
            raise DataError("no such number")
        self.offset = end
        self.batches.append((start, end))
        if self.answer_gets_lost:
            self.answer_gets_lost = False
            raise StoreUnavailable
        verdict = classify(batch, [])
        self.letters += [letter.reason for letter in verdict.letters]
        return verdict

    def discard(self) -> None:
        assert not self.at_once
        self.discarded = True

    def _fail(self) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure


class Scene:
    def __init__(self, most: int = 100) -> None:
        self.source = FakeSource()
        self.recorder = FakeRecorder()
        self.followed: list[BatchResult] = []
        self.next_is_on_its_way: list[bool] = []
        self.processor = Processor(
            self.source,  # type: ignore[arg-type]
            self.recorder,
            self,
            max_batch_fixes=most,
            max_batch_age_s=0.0,
        )

    def follow(self, verdict: BatchResult) -> None:
        self.followed.append(verdict)
        self.next_is_on_its_way.append(self.processor._flight is not None)

    def steps(self, times: int) -> None:
        for _ in range(times):
            self.processor.step()
            flight = self.processor._flight
            if flight is not None and self.recorder.is_open.is_set():
                wait([flight.landing])

    def committed_fixes(self) -> int:
        return sum(verdict.outcomes["committed"] for verdict in self.followed)


@pytest.fixture(autouse=True)
def _no_batch_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch starts as soon as the one before has landed."""
    monkeypatch.setattr(processor, "MOST_AGE_S", 0.0)


@pytest.fixture
def make_scene() -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []

    def make(most: int = 100) -> Scene:
        scenes.append(Scene(most))
        return scenes[-1]

    yield make
    for one in scenes:
        one.recorder.is_open.set()
        one.processor.close()


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    return make_scene()


@pytest.fixture
def fours(make_scene: Callable[..., Scene]) -> Scene:
    """Ten messages in batches of four."""
    return make_scene(4)


def test_step__messages__are_one_batch_and_one_commit(scene: Scene) -> None:
    scene.steps(2)
    assert scene.recorder.batches == [(0, 10)]
    assert scene.followed[0].outcomes == {"committed": 10}


def test_step__a_batch_is_being_committed__the_next_is_taken_meanwhile(fours: Scene) -> None:
    fours.recorder.is_open.clear()
    fours.steps(1)
    fours.source.during_take = fours.recorder.is_open.set  # the second: the first still waits
    fours.steps(1)
    assert fours.recorder.batches[0] == (0, 4)
    fours.steps(3)
    assert fours.recorder.batches == [(0, 4), (4, 8), (8, 10)]


def test_step__a_batch_has_landed__the_next_one_starts_before_anybody_is_told(
    fours: Scene,
) -> None:
    fours.steps(2)
    assert fours.next_is_on_its_way == [True]
    fours.steps(2)
    assert fours.next_is_on_its_way == [True, True, False]  # there is no more
    assert fours.committed_fixes() == 10


def test_step__a_batch_is_being_committed_for_long__the_next_grows_meanwhile(scene: Scene) -> None:
    scene.recorder.is_open.clear()
    for end in (2, 5, 9):
        scene.source.end = end
        scene.steps(1)
    scene.recorder.is_open.set()
    scene.source.end = 10
    scene.steps(3)
    assert scene.recorder.batches[0] == (0, 2)
    assert scene.recorder.batches[1] in ((2, 9), (2, 10))
    assert scene.recorder.offset == 10


def test_step__a_rebalance_while_a_batch_grows__it_is_dropped_and_read_again(scene: Scene) -> None:
    scene.recorder.is_open.clear()
    for end in (2, 5):
        scene.source.end = end
        scene.steps(1)
    scene.recorder.is_open.set()
    scene.source.leave()
    scene.steps(3)
    assert scene.source.events == ["open 0", "open 2"]
    assert scene.recorder.batches == [(0, 2), (2, 5)]
    assert scene.committed_fixes() == 5


def test_step__the_database_is_away__waits_and_goes_on_where_the_database_says(
    fours: Scene,
) -> None:
    fours.recorder.failures = [None, None, StoreUnavailable(), StoreUnavailable()]
    fours.steps(3)
    assert fours.source.events == ["open 0", "shut"]  # (4, 8) failed, (8, 10) was taken: dropped
    fours.steps(4)
    assert fours.source.events == ["open 0", "shut", "shut", "open 4"]
    assert fours.recorder.batches == [(0, 4), (4, 8), (8, 10)]
    assert fours.recorder.letters == []


def test_step__the_commits_answer_got_lost__skips_and_repeats_nothing(fours: Scene) -> None:
    fours.recorder.answer_gets_lost = True  # committed up to 4, and then the connection broke
    fours.steps(6)
    assert fours.source.events == ["open 0", "shut", "open 4"]
    assert fours.recorder.batches == [(0, 4), (4, 8), (8, 10)]


def test_step__another_consumer_moved_the_offset__drops_what_was_taken_and_rejoins(
    fours: Scene,
) -> None:
    fours.steps(1)
    fours.source.during_take = lambda: setattr(fours.recorder, "offset", 6)
    fours.steps(1)  # (4, 8) starts, where the database has 6 by now
    fours.source.during_take = lambda: None
    fours.steps(1)
    assert fours.source.events == ["open 0", "rejoin offset_lost"]
    fours.steps(2)
    assert fours.source.events[-1] == "open 6"
    assert fours.recorder.batches == [(0, 4), (6, 10)]


def test_step__a_rebalance_while_a_batch_is_being_committed__it_lands_before_the_partition_goes(
    fours: Scene,
) -> None:
    fours.recorder.is_open.clear()
    fours.steps(1)
    left_at: list[int] = []

    def rebalance() -> None:
        fours.source.during_take = lambda: None
        threading.Timer(0.05, fours.recorder.is_open.set).start()
        fours.source.leave()
        left_at.append(fours.recorder.offset)

    fours.source.during_take = rebalance
    fours.steps(5)
    assert left_at == [4]
    assert fours.source.events == ["open 0", "open 4"]
    assert fours.recorder.batches == [(0, 4), (4, 8), (8, 10)]


def test_step__a_rebalance_and_a_batch_that_the_database_cannot_take__is_read_again_by_its_owner(
    fours: Scene,
) -> None:
    fours.recorder.poison = 2
    fours.steps(1)

    def rebalance() -> None:
        fours.source.during_take = lambda: None
        fours.source.leave()

    fours.source.during_take = rebalance
    fours.steps(1)
    assert fours.recorder.batches == []  # not halved: it may be another consumer's by now
    fours.steps(6)
    assert fours.source.events == ["open 0", "open 0"]
    assert fours.recorder.letters == ["refused_by_database"]
    assert fours.committed_fixes() == 9


def test_start_over__a_batch_is_being_committed__it_lands_first(fours: Scene) -> None:
    fours.steps(1)
    fours.processor.start_over("topic_recreated")
    assert fours.recorder.offset == 4
    fours.steps(4)
    assert fours.source.events == ["open 0", "rejoin topic_recreated", "open 4"]
    assert fours.recorder.batches == [(0, 4), (4, 8), (8, 10)]


def test_close__a_batch_is_being_committed__it_lands_and_is_told_of(fours: Scene) -> None:
    fours.recorder.is_open.clear()
    fours.steps(1)
    threading.Timer(0.05, fours.recorder.is_open.set).start()
    fours.processor.close()
    assert fours.recorder.batches == [(0, 4)]
    assert fours.committed_fixes() == 4
    assert fours.recorder.discarded
    assert fours.source.events[-1] == "close"


def test_close__the_database_is_away__leaves_all_the_same(fours: Scene) -> None:
    fours.recorder.failures = [None, StoreUnavailable()]
    fours.steps(1)
    fours.processor.close()
    assert fours.source.events == ["open 0", "close"]
    assert fours.recorder.discarded


def test_step__a_fault_of_our_own_in_the_recorders_thread__is_raised(scene: Scene) -> None:
    scene.recorder.failures = [None, KeyError("ours")]
    scene.steps(1)
    with pytest.raises(KeyError):
        scene.steps(1)


def test_step__kafka_is_away__waits(scene: Scene) -> None:
    scene.source.kafka_is_up = False
    scene.steps(1)
    assert scene.recorder.batches == []
    scene.source.kafka_is_up = True
    scene.steps(2)
    assert scene.recorder.batches == [(0, 10)]


def test_step__a_row_that_the_database_cannot_take__is_buried_alone(fours: Scene) -> None:
    fours.recorder.poison = 7
    fours.steps(5)
    assert fours.recorder.letters == ["refused_by_database"]
    assert fours.recorder.offset == 10
    assert fours.committed_fixes() == 9
    assert fours.source.events == ["open 0"]  # what was taken meanwhile is not dropped for it


def test_step__a_row_that_the_database_cannot_take_once__is_committed(scene: Scene) -> None:
    scene.source.position = 9
    scene.recorder.offset = 9
    scene.recorder.failures = [None, DataError("two doors at once")]
    scene.steps(2)
    assert scene.recorder.letters == []
    assert scene.recorder.batches == [(9, 10)]


def test_step__more_rows_than_a_batch_holds__are_several_commits(fours: Scene) -> None:
    fours.steps(4)
    assert fours.recorder.batches == [(0, 4), (4, 8), (8, 10)]
