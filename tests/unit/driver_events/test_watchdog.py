"""The watchdog. The seam replaced: a source that says what Kafka would."""

from __future__ import annotations

from driver_events.consumer import TopicIdentity
from driver_events.watchdog import STALLED_S, Watchdog

TOPIC = TopicIdentity("cluster", "topic")


class FakeSource:
    def __init__(self) -> None:
        self.emptied_at = 0.0
        self.topic = TOPIC
        self.ends = {0: (5, 5), 1: (7, 7)}

    def identify(self) -> TopicIdentity:
        return self.topic

    def behind(self) -> dict[int, tuple[int, int]]:
        return self.ends


class Watch:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.source = FakeSource()
        self.watchdog = Watchdog(self.source, lambda: TOPIC, lambda: self.now_s)

    def alarm_after(self, seconds: float, *, emptied: bool = True) -> str | None:
        self.now_s += seconds
        if emptied:
            self.source.emptied_at = self.now_s
        self.watchdog.look()
        return self.watchdog.take_alarm()


def test_watchdog__nothing_waits__is_silent() -> None:
    watch = Watch()
    assert [watch.alarm_after(STALLED_S) for _ in range(3)] == [None] * 3


def test_watchdog__one_partition_never_comes__alarms_once() -> None:
    watch = Watch()
    watch.source.ends[1] = (7, 9)
    assert watch.alarm_after(0) is None
    assert watch.alarm_after(STALLED_S / 2) is None
    assert watch.alarm_after(STALLED_S / 2) == "partition_stalled"
    assert watch.alarm_after(0) is None


def test_watchdog__behind_but_moving__is_silent() -> None:
    watch = Watch()
    for offset in range(5):
        watch.source.ends[1] = (offset, 1000)
        assert watch.alarm_after(STALLED_S) is None


def test_watchdog__what_was_fetched_is_not_taken_yet__is_silent() -> None:
    watch = Watch()
    watch.source.ends[1] = (7, 900_000)
    assert [watch.alarm_after(STALLED_S, emptied=False) for _ in range(3)] == [None] * 3


def test_watchdog__another_topic_of_the_name__alarms() -> None:
    watch = Watch()
    watch.source.topic = TopicIdentity("cluster", "another")
    assert watch.alarm_after(0) == "topic_recreated"
