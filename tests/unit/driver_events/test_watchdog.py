"""The watchdog. The seam replaced: a consumer with set offsets."""

from __future__ import annotations

from driver_events.consumer import TopicIdentity
from driver_events.watchdog import STALLED_S, Watchdog

TOPIC = TopicIdentity("cluster", "topic")


class FakeConsumer:
    def __init__(self) -> None:
        self.drained_at_s = 0.0
        self.topic = TOPIC
        self.ends = {0: (5, 5), 1: (7, 7)}

    def identify(self) -> TopicIdentity:
        return self.topic

    def end_offsets(self) -> dict[int, tuple[int, int]]:
        return self.ends


class Watch:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.consumer = FakeConsumer()
        self.watchdog = Watchdog(self.consumer, lambda: TOPIC, lambda: self.now_s)

    def alarm_after(self, seconds: float, *, drained: bool = True) -> str | None:
        self.now_s += seconds
        if drained:
            self.consumer.drained_at_s = self.now_s
        self.watchdog.check()
        return self.watchdog.pop_alarm()


def test_watchdog__no_lag__raises_no_alarm() -> None:
    watch = Watch()
    assert [watch.alarm_after(STALLED_S) for _ in range(3)] == [None] * 3


def test_watchdog__one_partition_stalls__alarms_once() -> None:
    watch = Watch()
    watch.consumer.ends[1] = (7, 9)
    assert watch.alarm_after(0) is None
    assert watch.alarm_after(STALLED_S / 2) is None
    assert watch.alarm_after(STALLED_S / 2) == "partition_stalled"
    assert watch.alarm_after(0) is None


def test_watchdog__lagging_but_advancing__raises_no_alarm() -> None:
    watch = Watch()
    for offset in range(5):
        watch.consumer.ends[1] = (offset, 1000)
        assert watch.alarm_after(STALLED_S) is None


def test_watchdog__fetch_queue_not_drained__raises_no_alarm() -> None:
    watch = Watch()
    watch.consumer.ends[1] = (7, 900_000)
    assert [watch.alarm_after(STALLED_S, drained=False) for _ in range(3)] == [None] * 3


def test_watchdog__topic_recreated__alarms() -> None:
    watch = Watch()
    watch.consumer.topic = TopicIdentity("cluster", "another")
    assert watch.alarm_after(0) == "topic_recreated"
