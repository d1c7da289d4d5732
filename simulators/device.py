"""The reference device: what every phone in the fleet should do with its fixes.

    write()    the fix goes into the journal with the next seq; journal.commit() makes it durable
    pump()     pending fixes go out in order, QoS 1, a bounded number in flight; after an outage
               as arrays of up to 256
    ack        the committed watermark: what it covers leaves the journal; what it calls missing is
               sent again, and closed as void when it was sent again three times for nothing or is
               no longer in the journal
    reconnect  everything that is pending is sent again: a PUBACK promises no durability
    silence    three ack periods without a word while fixes wait: the same

Copies cost nothing but bytes, since the platform knows a fix by (driver, boot, seq).

As a command: `python -m simulators.device --driver ID` reads one JSON fix a line.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

import msgspec

from doorstep.journal import Journal
from doorstep.telemetry import get_logger
from simulators.connection import Connection, ConnectionFailed, Login
from simulators.settings import Fleet, SimulatorSettings, broker_of

MAX_IN_FLIGHT = 16  # below Mosquitto's max_inflight_messages default of 20
MAX_ARRAY_FIXES = 256
MAX_ARRAY_BYTES = 60_000  # the contract's 64 KiB, less brackets and a margin
MAX_RESENDS = 3
SILENT_PERIODS = 3
MAX_SILENCE_DOUBLINGS = 5
MAX_REPAIRS = 256  # missing seqs looked at per ack; the next ack names the rest
PUBACK_TIMEOUT_S = 20.0  # below the 45 s within which a black hole must be noticed
TICK_S = 2.0
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.25, 8.0


class Ack(msgspec.Struct, frozen=True):
    """The committed watermark: all of `boot` up to `seq` is committed, but for `missing`."""

    boot: str
    seq: int
    missing: list[tuple[int, int]] = []


class Resent(NamedTuple):
    """How often a missing fix was sent again, and what was the newest seq and the time then."""

    times: int
    sent_before: int
    at: float


class Device:
    """One driver's phone. All methods belong to the thread of the running loop."""

    def __init__(self, login: Login, journal: Journal, ack_every_s: float = 30.0) -> None:
        self.driver_id = login.username
        self.on_command: Callable[[bytes], None] = lambda _payload: None
        self.last_failure: str | None = None
        self._login = login
        self._journal = journal
        self._life = journal.open_life(self.driver_id)
        self._last_seq = self._life.last_seq
        self._fresh: tuple[int, bytes] | None = None
        self._cursor = 0  # highest seq sent on this connection
        self._repairs: deque[bytes] = deque()  # resends and voids, before anything new
        self._newest_ack: Ack | None = None
        self._resends: dict[int, Resent] = {}
        self._in_flight: dict[int, float] = {}  # message id: when it was sent
        self._waiting_since: float | None = None  # since when fixes wait without any ack
        self._silence_s = SILENT_PERIODS * ack_every_s
        self._silences = 0  # in a row
        self._connection: Connection | None = None
        self._stopping = asyncio.Event()
        self._log = get_logger(driver_id=self.driver_id)

    @property
    def boot(self) -> str:
        """The boot its fixes carry."""
        return self._life.boot

    @property
    def last_seq(self) -> int:
        """The newest seq in the journal."""
        return self._last_seq

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the device."""
        return self._connection is not None

    @property
    def unsent(self) -> bool:
        """Whether fixes wait to be sent, or for the broker's PUBACK."""
        return self._cursor < self._last_seq or bool(self._repairs or self._in_flight)

    @property
    def pending(self) -> int:
        """How many fixes the committed watermark has not passed."""
        return self._journal.count_pending(self._life.life_id)

    def write(self, fix: Mapping[str, object]) -> int:
        """Write a fix into the journal and return its seq.

        The caller commits the journal, so that many devices share one fsync, and then calls
        `pump()`, without giving the loop a turn in between.
        """
        seq = self._last_seq + 1
        payload = msgspec.json.encode({"boot": self.boot, "seq": seq, **fix})
        self._journal.append([(self._life.life_id, seq, payload)])
        self._last_seq = seq
        self._fresh = (seq, payload)
        return seq

    def pump(self) -> None:
        """Send what is pending and not yet sent, as far as the bound in flight allows."""
        if self._connection is None:
            return
        while len(self._in_flight) < MAX_IN_FLIGHT:
            payload = self._take_payload()
            if payload is None:
                return
            self._send(payload)

    async def run(self) -> None:
        """Stay connected until `stop()`."""
        failures = 0
        while not self._stopping.is_set():
            try:
                connection = await self._connect()
            except ConnectionFailed as exc:
                self.last_failure = str(exc)
                failures += 1
                longest = min(RECONNECT_MAX_S, RECONNECT_MIN_S * 2**failures)
                await self._sleep(random.uniform(RECONNECT_MIN_S, longest))
                continue
            failures, self.last_failure = 0, None
            await self._stay(connection)
            connection.close()
            self._connection = None
            self._in_flight.clear()
            await self._sleep(random.uniform(0, 1.0))  # not the whole fleet at once

    async def stop(self) -> None:
        """Report offline, say goodbye. What is pending stays in the journal."""
        self._stopping.set()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.publish(self._topic("status"), _status("offline"), retain=True)
            await connection.disconnect()

    async def _connect(self) -> Connection:
        connection = Connection(self._login, _status("offline"), self._on_puback, self._on_message)
        await connection.open()
        connection.subscribe([self._topic("ack"), self._topic("command")])
        connection.publish(self._topic("status"), _status("online"), retain=True)
        self._connection = connection
        self._waiting_since = None
        self._rewind()
        return connection

    async def _stay(self, connection: Connection) -> None:
        while not (connection.lost.is_set() or self._stopping.is_set()):
            try:
                await asyncio.wait_for(connection.lost.wait(), TICK_S)
            except TimeoutError:
                connection.tick()
                self._check_progress(connection, time.monotonic())

    def _check_progress(self, connection: Connection, now: float) -> None:
        oldest_sent = next(iter(self._in_flight.values()), now)
        if now - oldest_sent > PUBACK_TIMEOUT_S:
            self._log.warning("puback_overdue", in_flight=len(self._in_flight))
            connection.close()
        elif self._waiting_since is not None and now - self._waiting_since > self._patience_s:
            self._waiting_since = now
            self._silences += 1
            if self.pending:
                self._rewind()

    @property
    def _patience_s(self) -> float:
        """How long a silence may last: twice as long each time.

        Otherwise a long outage behind the broker would be answered with more and more copies.
        """
        return self._silence_s * float(2 ** min(self._silences, MAX_SILENCE_DOUBLINGS))

    def _rewind(self) -> None:
        """Send everything pending again, from the oldest."""
        self._cursor = 0
        self._repairs.clear()
        self.pump()

    def _take_payload(self) -> bytes | None:
        if self._repairs:
            return self._repairs.popleft()
        if self._cursor >= self._last_seq:
            return None
        if self._fresh is not None and self._cursor == self._fresh[0] - 1:
            self._cursor, payload = self._fresh
            return payload
        rows = self._journal.pending_after(self._life.life_id, self._cursor, MAX_ARRAY_FIXES)
        if not rows:
            self._cursor = self._last_seq
            return None
        array, taken = join_fixes(rows)
        self._cursor = rows[taken - 1][0]
        return array

    def _send(self, payload: bytes) -> None:
        if self._connection is None:
            return
        now = time.monotonic()
        self._in_flight[self._connection.publish(self._topic("position"), payload)] = now
        if self._waiting_since is None:
            self._waiting_since = now

    def _on_puback(self, message_id: int) -> None:
        if self._in_flight.pop(message_id, None) is not None:
            self.pump()

    def _on_message(self, topic: str, payload: bytes) -> None:
        if topic == self._topic("command"):
            self.on_command(payload)
            return
        try:
            ack = msgspec.json.decode(payload, type=Ack)
        except msgspec.DecodeError as exc:
            self._log.warning("unreadable_ack", detail=str(exc))
            return
        if ack.boot == self.boot:
            self._on_ack(ack)

    def _on_ack(self, ack: Ack) -> None:
        progress = ack != self._newest_ack
        self._newest_ack, gaps = ack, sorted(ack.missing)
        self._journal.forget(self._life.life_id, committed_ranges(ack.seq, gaps))
        self._silences = 0
        if ack.seq >= self._cursor and not gaps:
            self._waiting_since = None
        elif progress or self._waiting_since is None:
            self._waiting_since = time.monotonic()
        self._repair(gaps, ack.seq)

    def _repair(self, gaps: list[tuple[int, int]], reached: float) -> None:
        """Send missing fixes again, or close them as void.

        A resend has failed for sure only when something sent after it was committed (`reached`):
        one driver's fixes are worked off in the order sent. Without that sign it is repeated after
        the time of a silence, and not counted: the platform may only be slow.
        """
        now = time.monotonic()
        seqs = [seq for first, last in gaps for seq in range(first, min(last, self._cursor) + 1)]
        self._resends = {seq: self._resends[seq] for seq in seqs if seq in self._resends}
        for seq in seqs[:MAX_REPAIRS]:
            resent = self._resends.get(seq)
            failed = resent is None or reached > resent.sent_before
            if resent is not None and not failed and now - resent.at < self._silence_s:
                continue
            times = (resent.times if resent else 0) + failed
            self._resends[seq] = Resent(times, self._last_seq, now)
            row = self._journal.pending_between(self._life.life_id, seq, seq, 1)
            if row and times <= MAX_RESENDS:
                self._repairs.append(row[0][1])
            else:
                self._journal.add_void(self._life.life_id, seq)
                self._repairs.append(
                    msgspec.json.encode({"boot": self.boot, "seq": seq, "void": True})
                )
        self.pump()

    def _topic(self, leaf: str) -> str:
        return f"doorstep/v1/drivers/{self.driver_id}/{leaf}"

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


def committed_ranges(seq: int, gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What a watermark covers: 1 to `seq` without the gaps, as inclusive ranges."""
    edges = [(0, 0), *sorted(gaps), (seq + 1, seq + 1)]
    ranges = [(before[1] + 1, after[0] - 1) for before, after in pairwise(edges)]
    return [(first, min(last, seq)) for first, last in ranges if first <= min(last, seq)]


def join_fixes(rows: list[tuple[int, bytes]]) -> tuple[bytes, int]:
    """Join journal rows into one message: (message, how many rows it took). One row stays bare."""
    size = 0
    taken = 0
    for _, payload in rows:
        size += len(payload) + 1
        if taken and size > MAX_ARRAY_BYTES:
            break
        taken += 1
    if taken == 1:
        return rows[0][1], 1
    return b"[" + b",".join(payload for _, payload in rows[:taken]) + b"]", taken


def make_login(
    driver_id: str, settings: SimulatorSettings, fleet: Fleet, *, mqtt_5: bool = False
) -> Login:
    """The login of one of the fleet's devices at its own broker."""
    return Login(
        broker=broker_of(driver_id, settings.mqtt_url),
        username=driver_id,
        password=fleet.mqtt_password(driver_id),
        will_topic=f"doorstep/v1/drivers/{driver_id}/status",
        mqtt_5=mqtt_5,
    )


def _status(status: str) -> bytes:
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"status": status, "at": at})


if __name__ == "__main__":
    import sys

    from simulators.pipe import main

    sys.exit(main())
