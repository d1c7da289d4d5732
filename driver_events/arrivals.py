"""When records arrived: Kafka's timestamp, unless Kafka's clock was wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

from confluent_kafka import Message

from doorstep.clock_guard import MAX_STEP_S
from doorstep.telemetry import get_logger
from driver_events import metrics
from driver_events.batch import Record
from driver_events.consumer import records_of

TOLERANCE_MS = round(MAX_STEP_S * 1000)
_timestamp_of = itemgetter(2)


def _now_ms() -> int:
    return round(time.time() * 1000)


class ArrivalTimes:
    """Replaces timestamps of a wrong clock by the time at which the record is read.

    A timestamp is wrong if it is ahead of now, or behind what was committed before it in its
    partition; one that is close to now is right. The record arrived no later than now, so customers
    see no more than with its real time.
    """

    def __init__(
        self,
        check_clock: Callable[[], None] = lambda: None,
        now_ms: Callable[[], int] = _now_ms,
    ) -> None:
        self._check_clock = check_clock
        self._now_ms = now_ms
        self._replacing = False  # at the newest message
        self._committed: dict[int, tuple[int, int]] = {}  # partition -> next offset, newest time

    def resume(self, offsets: Mapping[int, int]) -> None:
        """Begin to read at these offsets. What is known of a partition counts if it goes on."""
        self._committed = {
            partition: found
            for partition, found in self._committed.items()
            if found[0] == offsets.get(partition)
        }

    def records_of(self, messages: Sequence[Message]) -> list[Record]:
        """Convert messages to records with the times of their arrival.

        Raises ClockStepped if the reader's clock may be the wrong one.
        """
        records = records_of(messages)
        stamps, now_ms = list(map(_timestamp_of, records)), self._now_ms()
        if not stamps or (
            min(stamps) >= now_ms - TOLERANCE_MS and max(stamps) <= now_ms + TOLERANCE_MS
        ):
            self._replacing = False
            return records
        wrong = [
            n
            for n, (message, stamp_ms) in enumerate(zip(messages, stamps, strict=True))
            if not self._is_right(_partition(message), stamp_ms, now_ms)
        ]
        if wrong:
            self._check_clock()
            metrics.WRONG_TIMESTAMPS.inc(len(wrong))
            if not self._replacing:
                off_s = (stamps[wrong[0]] - now_ms) / 1000
                get_logger().warning("wrong_timestamps", off_s=off_s)
        self._replacing = bool(wrong)
        for n in wrong:
            records[n] = records[n]._replace(received_at_ms=now_ms)
        return records

    def committed(self, messages: Sequence[Message]) -> None:
        """Remember the newest time of each partition."""
        last = {_partition(message): message for message in messages}
        now_ms = self._now_ms()
        for partition, message in last.items():
            _, newest_ms = self._committed.get(partition, (0, 0))
            stamp_ms = message.timestamp()[1]
            if stamp_ms <= now_ms + TOLERANCE_MS:
                newest_ms = max(newest_ms, stamp_ms)
            self._committed[partition] = ((message.offset() or 0) + 1, newest_ms)

    def _is_right(self, partition: int, stamp_ms: int, now_ms: int) -> bool:
        _, newest_ms = self._committed.get(partition, (0, 0))
        oldest_ms = min(newest_ms, now_ms) - TOLERANCE_MS
        return oldest_ms <= stamp_ms <= now_ms + TOLERANCE_MS


def _partition(message: Message) -> int:
    return message.partition() or 0
