"""The processing loop. The seams replaced: a consumer, a recorder that may fail or block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from typing import Any

import pytest

from doorstep.errors import ClockStepped, KafkaUnavailable, OffsetLost, StoreUnavailable
from driver_events import processor
from driver_events.batch import Batch, BatchResult, classify
from driver_events.consumer import TopicIdentity
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

    def partition(self) -> int:
        return 0


class FakeConsumer:
    """One partition with ten messages, read from `position`; `_offset` is the committed offset."""

    def __init__(self) -> None:
        self.position = -1
        self.end = 10
        self.assigned: Sequence[int] = [0]
        self.needs_offsets = True
        self.events: list[str] = []
        self.kafka_is_up = True
        self.check_clock: Callable[[], None] = lambda: None
        self.on_leave: Callable[[], None]
        self.during_consume: Callable[[], None] = lambda: None
        self._offset: int | None = None

    def identify(self) -> TopicIdentity:
        if not self.kafka_is_up:
            raise KafkaUnavailable
        return TOPIC

    def assign(self, offsets: Mapping[int, int]) -> None:
        self.position = self._offset = offsets[0]
        self.needs_offsets = False
        self.events.append(f"assign {self.position}")

    def unassign(self) -> None:
        self.needs_offsets = True
        self._offset = None
        self.events.append("unassign")

    def rejoin(self, reason: str) -> None:
        self.leave()
        self.events.append(f"rejoin {reason}")

    def leave(self) -> None:
        """Lose the partition in a rebalance and get it back."""
        self.on_leave()
        self._offset = None
        self.needs_offsets = True

    def consume(self, limit: int, timeout_s: float) -> list[FakeMessage]:
        taken = [FakeMessage(n) for n in range(self.position, self.end)][:limit]
        self.position += len(taken)
        self.during_consume()
        return [] if self.needs_offsets else taken

    def offset_ranges_of(self, messages: Sequence[FakeMessage]) -> dict[int, tuple[int, int]]:
        assert self._offset is not None
        return {0: (self._offset, messages[-1].offset() + 1)}

    def owns(self, offset_ranges: Mapping[int, tuple[int, int]]) -> bool:
        return self._offset is not None

    def advance(self, offset_ranges: Mapping[int, tuple[int, int]], records: int) -> None:
        assert sum(to - start for start, to in offset_ranges.values()) == records
        if self._offset is not None:
            self._offset = offset_ranges[0][1]

    def close(self) -> None:
        self.events.append("close")


class FakeRecorder:
    """Keeps offsets like the database, fails as configured and blocks until `is_open`."""

    def __init__(self) -> None:
        self.offset = 0
        self.failures: list[Exception | None] = []  # of one call after another
        self.answer_gets_lost = False
        self.poison: int | None = None
        self.batches: list[tuple[int, int]] = []
        self.dead_letters: list[str] = []
        self.is_open = threading.Event()
        self.is_open.set()
        self.at_once = 0
        self.discarded = False

    def open_offsets(self, topic: TopicIdentity, partitions: Sequence[int]) -> dict[int, int]:
        assert not self.at_once
        self._fail()
        return {0: self.offset}

    def record(
        self, batch: Batch, topic: TopicIdentity, offset_ranges: Mapping[int, Any]
    ) -> BatchResult:
        self.at_once += 1
        assert self.at_once == 1
        try:
            assert self.is_open.wait(10)
            return self._record(batch, offset_ranges)
        finally:
            self.at_once -= 1

    def _record(self, batch: Batch, offset_ranges: Mapping[int, Any]) -> BatchResult:
        self._fail()
        start, end = offset_ranges[0]
        if start != self.offset:
            raise OffsetLost
        if self.poison is not None and any(row[3] == self.poison for row in batch.rows):
            raise DataError("no such number")
        self.offset = end
        self.batches.append((start, end))
        if self.answer_gets_lost:
            self.answer_gets_lost = False
            raise StoreUnavailable
        result = classify(batch, [])
        self.dead_letters += [letter.reason for letter in result.dead_letters]
        return result

    def discard(self) -> None:
        assert not self.at_once
        self.discarded = True

    def _fail(self) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure


class Scene:
    def __init__(self, most: int = 100) -> None:
        self.consumer = FakeConsumer()
        self.recorder = FakeRecorder()
        self.followed: list[BatchResult] = []
        self.next_is_in_flight: list[bool] = []
        self.processor = Processor(
            self.consumer,  # type: ignore[arg-type]
            self.recorder,
            self,
            max_batch_fixes=most,
            max_batch_age_s=0.0,
        )

    def on_commit(self, result: BatchResult) -> None:
        self.followed.append(result)
        self.next_is_in_flight.append(self.processor._in_flight is not None)

    def steps(self, attempt: int) -> None:
        for _ in range(attempt):
            self.processor.step()
            in_flight = self.processor._in_flight
            if in_flight is not None and self.recorder.is_open.is_set():
                wait([in_flight.future])

    def committed_fixes(self) -> int:
        return sum(result.outcomes["committed"] for result in self.followed)


@pytest.fixture(autouse=True)
def _no_batch_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch starts as soon as the previous one has finished."""
    monkeypatch.setattr(processor, "MAX_BATCH_AGE_S", 0.0)


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


def test_step__messages__become_one_batch_and_one_commit(scene: Scene) -> None:
    scene.steps(2)
    assert scene.recorder.batches == [(0, 10)]
    assert scene.followed[0].outcomes == {"committed": 10}


def test_step__batch_in_flight__reads_the_next(fours: Scene) -> None:
    fours.recorder.is_open.clear()
    fours.steps(1)
    fours.consumer.during_consume = (
        fours.recorder.is_open.set
    )  # in the second step: the first commit is blocked
    fours.steps(1)
    assert fours.recorder.batches[0] == (0, 4)
    fours.steps(3)
    assert fours.recorder.batches == [(0, 4), (4, 8), (8, 10)]


def test_step__batch_finished__starts_the_next_before_notifying(
    fours: Scene,
) -> None:
    fours.steps(2)
    assert fours.next_is_in_flight == [True]
    fours.steps(2)
    assert fours.next_is_in_flight == [True, True, False]  # there is no more
    assert fours.committed_fixes() == 10


def test_step__slow_commit__the_next_batch_grows(scene: Scene) -> None:
    scene.recorder.is_open.clear()
    for end in (2, 5, 9):
        scene.consumer.end = end
        scene.steps(1)
    scene.recorder.is_open.set()
    scene.consumer.end = 10
    scene.steps(3)
    assert scene.recorder.batches[0] == (0, 2)
    assert scene.recorder.batches[1] in ((2, 9), (2, 10))
    assert scene.recorder.offset == 10


def test_step__rebalance_while_a_batch_grows__discards_and_reads_it_again(scene: Scene) -> None:
    scene.recorder.is_open.clear()
    for end in (2, 5):
        scene.consumer.end = end
        scene.steps(1)
    scene.recorder.is_open.set()
    scene.consumer.leave()
    scene.steps(3)
    assert scene.consumer.events == ["assign 0", "assign 2"]
    assert scene.recorder.batches == [(0, 2), (2, 5)]
    assert scene.committed_fixes() == 5


def test_step__database_unavailable__resumes_from_its_offsets(
    fours: Scene,
) -> None:
    fours.recorder.failures = [None, None, StoreUnavailable(), StoreUnavailable()]
    fours.steps(3)
    assert fours.consumer.events == [
        "assign 0",
        "unassign",
    ]  # (4, 8) failed, (8, 10) was taken: dropped
    fours.steps(4)
    assert fours.consumer.events == ["assign 0", "unassign", "unassign", "assign 4"]
    assert fours.recorder.batches == [(0, 4), (4, 8), (8, 10)]
    assert fours.recorder.dead_letters == []


def test_step__clock_not_trusted__judges_nothing_and_resumes(fours: Scene) -> None:
    def stepped() -> None:
        if not fours.consumer.needs_offsets:
            raise ClockStepped

    fours.consumer.during_consume = stepped
    fours.steps(2)
    assert fours.recorder.batches == []
    assert fours.consumer.events == ["assign 0", "unassign", "assign 0", "unassign"]
    fours.consumer.during_consume = lambda: None
    fours.steps(4)
    assert fours.recorder.batches == [(0, 4), (4, 8), (8, 10)]
    assert fours.committed_fixes() == 10


def test_step__lost_commit_answer__skips_and_repeats_nothing(fours: Scene) -> None:
    fours.recorder.answer_gets_lost = True  # committed up to 4, and then the connection broke
    fours.steps(6)
    assert fours.consumer.events == ["assign 0", "unassign", "assign 4"]
    assert fours.recorder.batches == [(0, 4), (4, 8), (8, 10)]


def test_step__offset_moved_by_another_consumer__discards_and_rejoins(
    fours: Scene,
) -> None:
    fours.steps(1)
    fours.consumer.during_consume = lambda: setattr(fours.recorder, "offset", 6)
    fours.steps(1)  # (4, 8) starts, where the database has 6 by now
    fours.consumer.during_consume = lambda: None
    fours.steps(1)
    assert fours.consumer.events == ["assign 0", "rejoin offset_lost"]
    fours.steps(2)
    assert fours.consumer.events[-1] == "assign 6"
    assert fours.recorder.batches == [(0, 4), (6, 10)]


def test_step__rebalance_with_a_batch_in_flight__finishes_it_before_the_revocation(
    fours: Scene,
) -> None:
    fours.recorder.is_open.clear()
    fours.steps(1)
    left_at: list[int] = []

    def rebalance() -> None:
        fours.consumer.during_consume = lambda: None
        threading.Timer(0.05, fours.recorder.is_open.set).start()
        fours.consumer.leave()
        left_at.append(fours.recorder.offset)

    fours.consumer.during_consume = rebalance
    fours.steps(5)
    assert left_at == [4]
    assert fours.consumer.events == ["assign 0", "assign 4"]
    assert fours.recorder.batches == [(0, 4), (4, 8), (8, 10)]


def test_step__rebalance_and_a_refused_batch__the_new_owner_reads_it_again(
    fours: Scene,
) -> None:
    fours.recorder.poison = 2
    fours.steps(1)

    def rebalance() -> None:
        fours.consumer.during_consume = lambda: None
        fours.consumer.leave()

    fours.consumer.during_consume = rebalance
    fours.steps(1)
    assert fours.recorder.batches == []  # not bisected: another consumer may own it
    fours.steps(6)
    assert fours.consumer.events == ["assign 0", "assign 0"]
    assert fours.recorder.dead_letters == ["refused_by_database"]
    assert fours.committed_fixes() == 9


def test_rejoin__batch_in_flight__finishes_it_first(fours: Scene) -> None:
    fours.steps(1)
    fours.processor.rejoin("topic_recreated")
    assert fours.recorder.offset == 4
    fours.steps(4)
    assert fours.consumer.events == ["assign 0", "rejoin topic_recreated", "assign 4"]
    assert fours.recorder.batches == [(0, 4), (4, 8), (8, 10)]


def test_close__batch_in_flight__finishes_and_notifies(fours: Scene) -> None:
    fours.recorder.is_open.clear()
    fours.steps(1)
    threading.Timer(0.05, fours.recorder.is_open.set).start()
    fours.processor.close()
    assert fours.recorder.batches == [(0, 4)]
    assert fours.committed_fixes() == 4
    assert fours.recorder.discarded
    assert fours.consumer.events[-1] == "close"


def test_close__database_unavailable__leaves_the_group(fours: Scene) -> None:
    fours.recorder.failures = [None, StoreUnavailable()]
    fours.steps(1)
    fours.processor.close()
    assert fours.consumer.events == ["assign 0", "close"]
    assert fours.recorder.discarded


def test_step__unexpected_exception_in_the_recorder__is_raised(scene: Scene) -> None:
    scene.recorder.failures = [None, KeyError("ours")]
    scene.steps(1)
    with pytest.raises(KeyError):
        scene.steps(1)


def test_step__kafka_unavailable__waits(scene: Scene) -> None:
    scene.consumer.kafka_is_up = False
    scene.steps(1)
    assert scene.recorder.batches == []
    scene.consumer.kafka_is_up = True
    scene.steps(2)
    assert scene.recorder.batches == [(0, 10)]


def test_step__row_refused_by_the_database__becomes_the_only_dead_letter(fours: Scene) -> None:
    fours.recorder.poison = 7
    fours.steps(5)
    assert fours.recorder.dead_letters == ["refused_by_database"]
    assert fours.recorder.offset == 10
    assert fours.committed_fixes() == 9
    assert fours.consumer.events == ["assign 0"]  # records read meanwhile are not discarded


def test_step__row_refused_once__is_committed(scene: Scene) -> None:
    scene.consumer.position = 9
    scene.recorder.offset = 9
    scene.recorder.failures = [None, DataError("a concurrent PATCH")]
    scene.steps(2)
    assert scene.recorder.dead_letters == []
    assert scene.recorder.batches == [(9, 10)]


def test_step__more_rows_than_a_batch_holds__become_several_commits(fours: Scene) -> None:
    fours.steps(4)
    assert fours.recorder.batches == [(0, 4), (4, 8), (8, 10)]
