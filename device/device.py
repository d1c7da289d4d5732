"""The reference device: what every phone in the fleet should do with its fixes.

    observe()  the phone has taken a fix: `device.sampling` says whether it is written
    write()    the fix goes into the journal with the next seq; journal.commit() makes it durable
    pump()     pending fixes go out in order, QoS 1, a bounded number in flight; after an outage,
               or when it is told to save its radio, as arrays of up to 256
    ack        the committed watermark: what it covers leaves the journal; what it calls missing is
               sent again, and closed as void when it was sent again three times for nothing or is
               no longer in the journal
    reconnect  everything that is pending is sent again: a PUBACK promises no durability
    silence    three ack periods without a word while fixes wait: the same
    hold       the ack says that fixes over the quota wait at the platform: new fixes go out, and
               nothing is sent again before the hold is over
    full       a full journal gives up its oldest fixes: said in the log and in `status`, and
               closed as void
    old copy   an ack above everything written: the journal was put back from a backup. A new boot
               begins, and what was written since goes into it
    command    how to report, set by the staff

Copies cost nothing but bytes, since the platform knows a fix by (driver, boot, seq).

As a command: `python -m device.device --driver ID` reads one JSON fix a line.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from device.connection import Connection, ConnectionFailed, Login
from device.journal import Journal
from device.retransmission import MAX_ARRAY_FIXES, Ack, Retransmission, committed_ranges, join_fixes
from device.sampling import Sampler
from device.settings import DeviceSettings, FleetSecrets, broker_of
from doorstep.sampling import MalformedCommand, decode_command
from doorstep.telemetry import get_logger

MAX_IN_FLIGHT = 16  # below Mosquitto's max_inflight_messages default of 20
SILENT_PERIODS = 3
MAX_SILENCE_DOUBLINGS = 5
SAY_GIVEN_UP_EVERY_S = 30.0  # that fixes are given up: in the log and in `status`
PUBACK_TIMEOUT_S = 20.0  # below the 45 s within which a black hole must be noticed
TICK_S = 2.0
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.25, 8.0


class Device:
    """One driver's phone. All methods belong to the thread of the running loop."""

    def __init__(self, login: Login, journal: Journal, ack_every_s: float = 30.0) -> None:
        self.driver_id = login.username
        self.reporter = Sampler()
        self.last_failure: str | None = None
        self._login = login
        self._journal = journal
        self._life = journal.open_boot(self.driver_id)
        self._last_seq = self._life.last_seq
        self._fresh: tuple[int, bytes] | None = None
        self._cursor = 0  # highest seq sent on this connection
        self._repairs: deque[bytes] = deque()  # resends and voids, before anything new
        self._unsent_since: float | None = None  # when the first fix not yet sent was written
        self._newest_ack: Ack | None = None
        self._in_flight: dict[int, float] = {}  # message id: when it was sent
        self._waiting_since: float | None = None  # since when fixes wait without any ack
        self._silence_s = SILENT_PERIODS * ack_every_s
        self._silences = 0  # in a row
        self._held_until: float | None = None  # nothing is sent again before
        self._missing = Retransmission(journal, self._life, self._silence_s)
        self._given_up = journal.count_given_up(self._life.life_id)
        self._said_given_up = (0.0, self._given_up)  # when, and how many
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

    @property
    def given_up(self) -> int:
        """How many fixes of this boot were closed as void."""
        return self._given_up

    def observe(self, fix: Mapping[str, Any]) -> int:
        """The phone has taken a fix: write what is to be reported, and say how many that is.

        Then as with `write()`: commit the journal, `pump()`.
        """
        due = self.reporter.take(fix)
        for one in due:
            self.write(one)
        return len(due)

    def write(self, fix: Mapping[str, object]) -> int:
        """Write a fix into the journal and return its seq.

        The caller commits the journal, so that many devices share one fsync, and then calls
        `pump()`, without giving the loop a turn in between.
        """
        seq = self._last_seq + 1
        payload = msgspec.json.encode({"boot": self.boot, "seq": seq, **fix})
        given_up = self._journal.append([(self._life.life_id, seq, payload)])
        self._given_up += sum(given_up.values())
        if self._cursor >= self._last_seq:
            self._unsent_since = time.monotonic()
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
        """SamplingPolicy offline, say goodbye. What is pending stays in the journal."""
        self._stopping.set()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.publish(self._topic("status"), self._status("offline"), retain=True)
            await connection.disconnect()

    async def _connect(self) -> Connection:
        connection = Connection(
            self._login, self._status("offline"), self._on_puback, self._on_message
        )
        await connection.open()
        connection.subscribe([self._topic("ack"), self._topic("command")])
        connection.publish(self._topic("status"), self._status("online"), retain=True)
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
                self._end_hold(time.monotonic())
                self._check_progress(connection, time.monotonic())
                self._say_given_up(connection, time.monotonic())
                self.pump()  # a batch may be due

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
        """Send everything pending again, from the oldest; during a hold, only what is new."""
        self._repairs.clear()
        if self._held_until is None:
            self._cursor = 0
            self._unsent_since = None  # nothing of it is held back
        self.pump()

    def _end_hold(self, now: float) -> None:
        """After a hold send everything pending again: the acks that it kept from us may be lost."""
        if self._held_until is not None and now >= self._held_until:
            self._held_until = None
            self._rewind()

    def _take_payload(self) -> bytes | None:
        if self._repairs:
            return self._repairs.popleft()
        if self._cursor >= self._last_seq or self._is_held_back(time.monotonic()):
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

    def _is_held_back(self, now: float) -> bool:
        """Whether what is not yet sent waits to go out with more, in one use of the radio."""
        since, batch_s = self._unsent_since, self.reporter.batch_s
        return since is not None and batch_s > 0 and now - since < batch_s

    def _say_given_up(self, connection: Connection, now: float) -> None:
        """Tell, at most every 30 s, that a full journal gave up more fixes."""
        said_at, said = self._said_given_up
        if self._given_up > said and now - said_at > SAY_GIVEN_UP_EVERY_S:
            self._said_given_up = (now, self._given_up)
            self._log.warning(
                "fixes_given_up", given_up=self._given_up, since=said, pending=self.pending
            )
            connection.publish(self._topic("status"), self._status("online"), retain=True)

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
            self._on_command(payload)
            return
        try:
            ack = msgspec.json.decode(payload, type=Ack)
        except msgspec.DecodeError as exc:
            self._log.warning("unreadable_ack", detail=str(exc))
            return
        if ack.boot != self.boot:
            return
        if ack.seq > self._last_seq:
            self._leave_boot(ack)
        else:
            self._on_ack(ack)

    def _on_command(self, payload: bytes) -> None:
        try:
            report = decode_command(payload)
        except MalformedCommand as exc:
            self._log.warning("unreadable_command", detail=str(exc))
            return
        self.reporter.follow(report)
        self._log.info("reporting_set", mode=report.mode)
        self.pump()

    def _on_ack(self, ack: Ack) -> None:
        progress = ack != self._newest_ack
        self._newest_ack = ack
        self._journal.forget(self._life.life_id, committed_ranges(ack))
        self._silences = 0
        if ack.seq >= self._cursor and not ack.missing:
            self._waiting_since = None
        elif progress or self._waiting_since is None:
            self._waiting_since = time.monotonic()
        if ack.hold_s > 0:
            self._held_until = time.monotonic() + ack.hold_s
            self._repairs.clear()
            self.pump()
            return
        self._held_until = None
        rows = self._missing.plan(
            ack, sent_up_to=self._cursor, last_seq=self._last_seq, now_s=time.monotonic()
        )
        while rows:
            payload, taken = join_fixes(rows)
            self._repairs.append(payload)
            rows = rows[taken:]
        self._given_up = self._journal.count_given_up(self._life.life_id)
        self.pump()

    def _leave_boot(self, ack: Ack) -> None:
        """Go on with a new boot: the platform knows seqs that this journal never used.

        It is an old copy, put back. What was written since carries seqs that stand for other
        fixes, so it is written anew; of what the copy held, only what is missing.
        """
        old, last_seq = self._life, self._last_seq
        rows = self._journal.pending_between(old.life_id, 1, last_seq, last_seq)
        rescued = [
            payload
            for seq, payload in rows
            if seq > old.last_seq or any(first <= seq <= last for first, last in ack.missing)
        ]
        self._log.error("journal_is_an_old_copy", boot=old.boot, rescued=len(rescued))
        self._life = self._journal.begin_boot(self.driver_id)
        self._last_seq = self._cursor = self._given_up = 0
        self._fresh, self._newest_ack, self._held_until = None, None, None
        self._repairs.clear()
        self._missing = Retransmission(self._journal, self._life, self._silence_s)
        for payload in rescued:
            fix = msgspec.json.decode(payload)
            self.write({name: fix[name] for name in fix if name not in ("boot", "seq")})
        self._journal.forget(old.life_id, [(1, last_seq)])
        self._journal.commit()
        self._rewind()

    def _status(self, status: str) -> bytes:
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        given_up = {"given_up": self._given_up} if self._given_up else {}
        return msgspec.json.encode({"status": status, "at": at, **given_up})

    def _topic(self, leaf: str) -> str:
        return f"doorstep/v1/drivers/{self.driver_id}/{leaf}"

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


def make_login(
    driver_id: str, settings: DeviceSettings, fleet: FleetSecrets, *, mqtt_5: bool = False
) -> Login:
    """The login of one of the fleet's devices at its own broker."""
    return Login(
        broker=broker_of(driver_id, settings.mqtt_url),
        username=driver_id,
        password=fleet.mqtt_password(driver_id),
        will_topic=f"doorstep/v1/drivers/{driver_id}/status",
        mqtt_5=mqtt_5,
    )
