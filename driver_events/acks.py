"""Sends the committed watermark to the devices over MQTT."""

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
from driver_events.batch import BootKey
from driver_events.recorder import Connection

TICK_S = 1.0  # the delay of a first watermark
PAIRS_PER_READ = 2000
MAX_MISSING = 64  # ranges in one ack, as many as the database returns: 64 x 40 bytes

_encode = msgspec.json.Encoder().encode


def encode_watermark(mark: Watermark) -> bytes:
    """Encode an ack. With more than MAX_MISSING gaps, `seq` is lowered below the first omitted."""
    seq, missing = mark.seq, mark.missing
    if len(missing) > MAX_MISSING:
        seq, missing = missing[MAX_MISSING][0] - 1, missing[:MAX_MISSING]
    ack: dict[str, object] = {"boot": mark.boot, "seq": seq, "missing": missing}
    if mark.hold_s:
        ack["hold_s"] = mark.hold_s
    if mark.held:  # 0 is left out, to save bytes on the radio
        ack["held"] = mark.held
    return _encode(ack)


class AckSchedule:
    """Decides when each boot with new fixes gets its ack: immediately, then every `every_s`.

    After `every_s` the ack waits for the boot's next fix, because the phone's radio is on then, and
    is sent after 2 x `every_s` at the latest. Thread-safe. `now_s` is passed in for tests.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._scheduled: set[BootKey] = set()
        self._deadlines: defaultdict[int, list[BootKey]] = defaultdict(
            list
        )  # by second: the latest to send
        self._cooling_down: defaultdict[int, list[BootKey]] = defaultdict(
            list
        )  # by second: not to send before
        self._eligible: set[BootKey] = set()  # to be sent with the next fix
        self._sent_at: dict[BootKey, float] = {}

    def request(self, boot_keys: Collection[BootKey], now_s: float) -> None:
        """Schedule acks for boots with new fixes."""
        with self._lock:
            requested = set(boot_keys)
            eligible = requested & self._eligible
            self._eligible -= eligible
            self._deadlines[int(now_s)] += eligible
            fresh = requested - self._scheduled
            self._scheduled |= fresh
            for boot_key in fresh:
                eligible_s = self._eligible_at_s(boot_key)
                if eligible_s <= now_s:
                    self._deadlines[int(now_s)].append(boot_key)
                else:
                    self._cooling_down[int(eligible_s)].append(boot_key)
                    self._deadlines[int(eligible_s + self._every_s)].append(boot_key)

    def pop_due(self, now_s: float) -> list[BootKey]:
        """Remove and return the boots whose ack is due; later requests schedule them again."""
        with self._lock:
            for slot in [slot for slot in self._cooling_down if slot <= now_s]:
                self._eligible.update(self._scheduled.intersection(self._cooling_down.pop(slot)))
            due = [slot for slot in self._deadlines if slot <= now_s]
            # A boot that was sent early still stands in its later slot.
            boot_keys = list(
                dict.fromkeys(
                    boot_key
                    for slot in sorted(due)
                    for boot_key in self._deadlines.pop(slot)
                    if boot_key in self._scheduled and self._eligible_at_s(boot_key) <= now_s
                )
            )
            self._scheduled.difference_update(boot_keys)
            self._eligible.difference_update(boot_keys)
            self._sent_at.update(dict.fromkeys(boot_keys, now_s))
            return boot_keys

    def _eligible_at_s(self, boot_key: BootKey) -> float:
        """When a boot's ack may be sent again, less the tick that sends it."""
        return self._sent_at.get(boot_key, -self._every_s) + self._every_s - TICK_S

    def retry(self, boot_keys: Collection[BootKey], now_s: float) -> None:
        """Schedule acks that could not be sent for the next tick."""
        with self._lock:
            for boot_key in boot_keys:
                self._sent_at.pop(boot_key, None)
        self.request(boot_keys, now_s)

    def expire_before(self, then_s: float) -> None:
        """Drop boots whose last ack is older than `then_s`."""
        with self._lock:
            self._sent_at = {boot_key: at for boot_key, at in self._sent_at.items() if at >= then_s}


class AckSender(Protocol):
    """The transport of acks: MQTT, or a fake in unit tests."""

    def send(self, acks: Sequence[tuple[str, bytes]]) -> Collection[str]:
        """Send acks, (driver_id, payload); return the drivers whose broker is unreachable."""


class AckPublisher:
    """Reads and sends the watermarks that are due."""

    def __init__(
        self,
        schedule: AckSchedule,
        read: Callable[[Sequence[BootKey]], list[Watermark]],
        sender: AckSender,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schedule = schedule
        self._read = read
        self._sender = sender
        self._every_s = every_s
        self._clock = clock
        self._expired_at_s = clock()

    def request(self, boot_keys: Collection[BootKey]) -> None:
        """Schedule acks for boots with new fixes. Thread-safe."""
        self._schedule.request(boot_keys, self._clock())

    def send_due(self) -> bool:
        """Send the acks that are due. Raises Unavailable, after which they are scheduled again."""
        now_s = self._clock()
        due = self._schedule.pop_due(now_s)
        for at in range(0, len(due), PAIRS_PER_READ):
            part = due[at : at + PAIRS_PER_READ]
            try:
                marks = self._read(part)
            except Unavailable:
                self._schedule.retry(due[at:], now_s)
                raise
            unreachable = self._sender.send(
                [(mark.driver_id, encode_watermark(mark)) for mark in marks]
            )
            unsent = [
                (mark.driver_id, mark.boot) for mark in marks if mark.driver_id in unreachable
            ]
            self._schedule.retry(unsent, now_s)
            metrics.WATERMARKS.inc(len(marks) - len(unsent))
        if now_s - self._expired_at_s > 10 * self._every_s:
            self._expired_at_s = now_s
            self._schedule.expire_before(now_s - 2 * self._every_s)
        return False


def watermark_reader(connection: Connection) -> Callable[[Sequence[BootKey]], list[Watermark]]:
    """Return a function that reads watermarks from the database; it raises Unavailable.

    With a standby it returns those that the standby has.
    """

    def read(boot_keys: Sequence[BootKey]) -> list[Watermark]:
        with connection.transaction() as conn:
            marks = fix_writer.read_watermarks(conn, boot_keys)
            fix_writer.confirm_commit(conn)
        return marks

    return read
