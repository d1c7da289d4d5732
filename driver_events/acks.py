"""The committed watermark, back to the devices over MQTT."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import msgspec

from doorstep.errors import Unavailable
from doorstep.store import fix_writer
from doorstep.store.records import Watermark
from driver_events import metrics
from driver_events.batch import Pair
from driver_events.recorder import Connection

TICK_S = 1.0  # how long a first watermark may wait
PAIRS_PER_READ = 2000
MOST_MISSING = 64  # ranges in one ack, as many as the database names: 64 x 40 bytes

_encode = msgspec.json.Encoder().encode


def encode_watermark(mark: Watermark) -> bytes:
    """Encode an ack. Too many gaps to name shorten it: it never claims what is missing."""
    seq, missing = mark.seq, mark.missing
    if len(missing) > MOST_MISSING:
        seq, missing = missing[MOST_MISSING][0] - 1, missing[:MOST_MISSING]
    ack: dict[str, object] = {"boot": mark.boot, "seq": seq, "missing": missing}
    if mark.hold_s:
        ack["hold_s"] = mark.hold_s
    if mark.held:  # 0 where it is left out: an ack costs the radio nothing that it need not say
        ack["held"] = mark.held
    return _encode(ack)


class AckSchedule:
    """When each (driver, boot) with news gets its ack: at once, then every `every_s` at most.

    When that time is over, the ack waits for the next news and follows it: the phone's radio is
    up then, and need not wake for the ack. Without any it goes out after twice the time.
    Any thread may call it. `now_s` is passed in, so that a test can turn the clock.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._scheduled: set[Pair] = set()
        self._slots: defaultdict[int, list[Pair]] = defaultdict(list)  # when to send at the latest
        self._resting: defaultdict[int, list[Pair]] = defaultdict(list)  # until when to wait
        self._rested: set[Pair] = set()  # the next news brings the ack
        self._sent_at: dict[Pair, float] = {}

    def note(self, pairs: Collection[Pair], now_s: float) -> None:
        """There is news of these."""
        with self._lock:
            news = set(pairs)
            riding = news & self._rested
            self._rested -= riding
            self._slots[int(now_s)] += riding
            fresh = news - self._scheduled
            self._scheduled |= fresh
            for pair in fresh:
                rested_s = self._rested_at_s(pair)
                if rested_s <= now_s:
                    self._slots[int(now_s)].append(pair)
                else:
                    self._resting[int(rested_s)].append(pair)
                    self._slots[int(rested_s + self._every_s)].append(pair)

    def take_due(self, now_s: float) -> list[Pair]:
        """Take those whose time has come; news from here on schedules them again."""
        with self._lock:
            for slot in [slot for slot in self._resting if slot <= now_s]:
                self._rested.update(self._scheduled.intersection(self._resting.pop(slot)))
            due = [slot for slot in self._slots if slot <= now_s]
            # A pair that rode on news is left over in its later slot.
            pairs = list(
                dict.fromkeys(
                    pair
                    for slot in sorted(due)
                    for pair in self._slots.pop(slot)
                    if pair in self._scheduled and self._rested_at_s(pair) <= now_s
                )
            )
            self._scheduled.difference_update(pairs)
            self._rested.difference_update(pairs)
            self._sent_at.update(dict.fromkeys(pairs, now_s))
            return pairs

    def _rested_at_s(self, pair: Pair) -> float:
        """When it may be sent again; a tick early, since it is sent by the next tick."""
        return self._sent_at.get(pair, -self._every_s) + self._every_s - TICK_S

    def put_back(self, pairs: Collection[Pair], now_s: float) -> None:
        """These could not be sent after all: try them at the next tick."""
        with self._lock:
            for pair in pairs:
                self._sent_at.pop(pair, None)
        self.note(pairs, now_s)

    def forget_before(self, then_s: float) -> None:
        """Forget boots that have long been silent."""
        with self._lock:
            self._sent_at = {pair: at for pair, at in self._sent_at.items() if at >= then_s}


class Sender(Protocol):
    """Where acks go: MQTT, or a stand-in in unit tests."""

    def send(self, acks: Sequence[tuple[str, bytes]]) -> Collection[str]:
        """Send acks, (driver_id, payload); return the drivers whose broker is away."""


class AckPublisher:
    """Reads watermarks that are due, and sends them."""

    def __init__(
        self,
        schedule: AckSchedule,
        read: Callable[[Sequence[Pair]], list[Watermark]],
        sender: Sender,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schedule = schedule
        self._read = read
        self._sender = sender
        self._every_s = every_s
        self._clock = clock
        self._forgot_at = clock()

    def note(self, pairs: Collection[Pair]) -> None:
        """There is news of these. Any thread may call it."""
        self._schedule.note(pairs, self._clock())

    def send_due(self) -> bool:
        """Send what is due. Raises Unavailable; then it is sent later."""
        now_s = self._clock()
        due = self._schedule.take_due(now_s)
        for at in range(0, len(due), PAIRS_PER_READ):
            part = due[at : at + PAIRS_PER_READ]
            try:
                marks = self._read(part)
            except Unavailable:
                self._schedule.put_back(due[at:], now_s)
                raise
            away = self._sender.send([(mark.driver_id, encode_watermark(mark)) for mark in marks])
            unsent = [(mark.driver_id, mark.boot) for mark in marks if mark.driver_id in away]
            self._schedule.put_back(unsent, now_s)
            metrics.WATERMARKS.inc(len(marks) - len(unsent))
        if now_s - self._forgot_at > 10 * self._every_s:
            self._forgot_at = now_s
            self._schedule.forget_before(now_s - 2 * self._every_s)
        return False


def reader(connection: Connection) -> Callable[[Sequence[Pair]], list[Watermark]]:
    """Read watermarks from the database. The function raises Unavailable."""

    def read(pairs: Sequence[Pair]) -> list[Watermark]:
        with connection.transaction() as conn:
            return fix_writer.read_watermarks(conn, pairs)

    return read
