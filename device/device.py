"""The reference device: how a phone publishes its fixes so that none is lost.

    observe()   the phone has a fix: `device.sampling` decides whether to write it
    write()     the fix goes to the journal with the next seq; the journal's commit makes it durable
    pump()      pending fixes go out in order with QoS 1, up to 16 messages in flight; after an
                outage, and in batch mode, as arrays of up to 256
    ack         the platform's committed watermark: covered fixes leave the journal, missing ones
                are resent. A fix that was resent three times in vain, or that is no longer in the
                journal, is closed as void
    reconnect   all pending fixes are sent again, because a PUBACK does not promise durability
    ack timeout no ack for three ack periods while fixes wait: the same
    hold        the ack says that fixes over the quota are parked: new fixes go out, and nothing is
                sent again until the hold is over
    full        a full journal gives up its oldest fixes: they are closed as void, and the log and
                `status` report their number
    restored    an ack above the newest seq: the journal was restored from a backup. A new boot
                begins, and the fixes written since are written to it
    command     the server has set a sampling policy

Copies are harmless: the platform identifies a fix by (driver, boot, seq).

    device = Device(login, journal)
    running = asyncio.create_task(device.run())
    device.observe({"fix_at": 1795262584123, "lat_deg": 43.7712, "lon_deg": 11.2486})
    journal.commit()
    device.pump()
    ...
    await device.stop()
    await running
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from device.connection import Connection, ConnectionFailed, Login
from device.journal import Journal
from device.outbox import Outbox
from device.publish_spans import PublishSpans
from device.retransmission import Ack, Retransmission, committed_spans
from device.sampling import Sampler
from device.settings import DeviceSettings, FleetSecrets, broker_of
from device.timeouts import AckTimeout, InFlightWindow
from doorstep.mqtt_topics import ACK, COMMAND, POSITION, STATUS, topic_of
from doorstep.sampling import MalformedCommand, decode_command
from doorstep.telemetry import get_logger

TICK_S = 2.0
GIVEN_UP_REPORT_EVERY_S = 30.0
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.25, 8.0
RECONNECT_JITTER_S = 1.0  # spreads the reconnects of a whole fleet


class Device:
    """The device of one driver. All methods belong to the thread of the running event loop."""

    def __init__(
        self,
        login: Login,
        journal: Journal,
        ack_every_s: float = 30.0,
        spans: PublishSpans | None = None,
    ) -> None:
        self.driver_id = login.username
        self.sampler = Sampler()
        self.ignores_commands = False  # of the server: a simulation chooses the sampling itself
        self.last_failure: str | None = None  # why there is no connection
        self._login = login
        self._journal = journal
        self._outbox = Outbox(journal, journal.open_boot(self.driver_id))
        self._ack_timeout = AckTimeout(ack_every_s)
        self._retransmission = self._new_retransmission()
        self._newest_ack: Ack | None = None
        self._in_flight = InFlightWindow()
        self._spans = spans  # None: traces are off
        self._held_until_s: float | None = None  # nothing is sent again before
        self._reported_given_up = (0.0, self._outbox.given_up)  # when, and how many
        self._connection: Connection | None = None
        self._stopping = asyncio.Event()
        self._log = get_logger(driver_id=self.driver_id)

    @property
    def boot(self) -> str:
        """The boot of new fixes."""
        return self._outbox.boot.boot

    @property
    def last_seq(self) -> int:
        """The newest seq in the journal."""
        return self._outbox.last_seq

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection."""
        return self._connection is not None

    @property
    def unsent(self) -> bool:
        """Whether any fix is unsent or without a PUBACK."""
        return self._outbox.has_unsent or len(self._in_flight) > 0

    @property
    def pending(self) -> int:
        """The number of fixes that the committed watermark does not cover."""
        return self._journal.count_pending(self._outbox.boot.boot_id)

    @property
    def given_up(self) -> int:
        """The number of fixes of this boot that were closed as void."""
        return self._outbox.given_up

    # -- fixes ------------------------------------------------------------------------------

    def observe(self, fix: Mapping[str, Any]) -> int:
        """Write the fixes that the sampling policy wants sent now, and return their number.

        As after `write()`, commit the journal and call `pump()`.
        """
        due = self.sampler.observe(fix)
        for one in due:
            self.write(one)
        return len(due)

    def write(self, fix: Mapping[str, object]) -> int:
        """Write a fix to the journal and return its seq.

        The caller commits the journal, so that many devices share one fsync, and then calls
        `pump()`, without an `await` in between.
        """
        return self._outbox.write(fix, time.monotonic())

    def pump(self) -> None:
        """Send unsent messages until the window of messages in flight is full."""
        while self._connection is not None and not self._in_flight.is_full:
            now_s = time.monotonic()
            message = self._outbox.next_message(now_s, self.sampler.batch_s)
            if message is None:
                return
            message_id = self._connection.publish(self._topic(POSITION), message)
            self._in_flight.add(message_id, now_s)
            if self._spans is not None:
                self._spans.published(message_id, message, now_s)
            self._ack_timeout.start(now_s)

    def flush(self) -> None:
        """Send the fixes that wait for others of their batch: no more will follow soon."""
        self._outbox.end_batch()
        self.pump()

    # -- connection -------------------------------------------------------------------------

    async def run(self) -> None:
        """Stay connected until `stop()`."""
        failures = 0
        while not self._stopping.is_set():
            try:
                connection = await self._connect()
            except ConnectionFailed as exc:
                self.last_failure = str(exc)
                failures += 1
                max_wait_s = min(RECONNECT_MAX_S, RECONNECT_MIN_S * 2**failures)
                await self._sleep(random.uniform(RECONNECT_MIN_S, max_wait_s))
                continue
            failures, self.last_failure = 0, None
            await self._stay_connected(connection)
            connection.close()
            self._connection = None
            self._in_flight.clear()
            if self._spans is not None:
                self._spans.clear()
            await self._sleep(random.uniform(0, RECONNECT_JITTER_S))

    async def stop(self) -> None:
        """Publish `offline` and disconnect. Pending fixes stay in the journal."""
        self._stopping.set()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.publish(self._topic(STATUS), self._status("offline"), retain=True)
            await connection.disconnect()

    async def _connect(self) -> Connection:
        connection = Connection(
            self._login, self._status("offline"), self._on_puback, self._on_message
        )
        await connection.open()
        connection.subscribe([self._topic(ACK), self._topic(COMMAND)])
        connection.publish(self._topic(STATUS), self._status("online"), retain=True)
        self._connection = connection
        self._ack_timeout.stop()
        self._resend_pending()
        return connection

    async def _stay_connected(self, connection: Connection) -> None:
        while not (connection.lost.is_set() or self._stopping.is_set()):
            try:
                await asyncio.wait_for(connection.lost.wait(), TICK_S)
            except TimeoutError:
                connection.tick()
                self._end_hold(time.monotonic())
                self._check_timeouts(connection, time.monotonic())
                self._report_given_up(connection, time.monotonic())
                self.pump()  # a batch may be due

    def _check_timeouts(self, connection: Connection, now_s: float) -> None:
        if self._in_flight.is_overdue(now_s):
            self._log.warning("puback_overdue", in_flight=len(self._in_flight))
            connection.close()
        elif self._ack_timeout.has_expired(now_s) and self.pending:
            if self._ack_timeout.was_silent and self._held_until_s is None:
                self._outbox.ask()
                self.pump()
            else:
                self._resend_pending()

    def _resend_pending(self) -> None:
        """Send all pending fixes again; during a hold, only new ones are sent."""
        if self._held_until_s is None:
            self._outbox.rewind()
        else:
            self._outbox.cancel_resends()
        self.pump()

    def _end_hold(self, now_s: float) -> None:
        """Send all pending fixes again once a hold is over: later acks may have been lost."""
        if self._held_until_s is not None and now_s >= self._held_until_s:
            self._held_until_s = None
            self._resend_pending()

    def _report_given_up(self, connection: Connection, now_s: float) -> None:
        """Report fixes that a full journal gave up, at most every 30 s."""
        reported_at_s, reported = self._reported_given_up
        given_up = self.given_up
        if given_up > reported and now_s - reported_at_s > GIVEN_UP_REPORT_EVERY_S:
            self._reported_given_up = (now_s, given_up)
            self._log.warning(
                "fixes_given_up", given_up=given_up, before=reported, pending=self.pending
            )
            connection.publish(self._topic(STATUS), self._status("online"), retain=True)

    # -- messages from the broker and the platform ----------------------------------------------

    def _on_puback(self, message_id: int) -> None:
        if self._in_flight.remove(message_id):
            if self._spans is not None:
                self._spans.acknowledged(message_id)
            self.pump()

    def _on_message(self, topic: str, payload: bytes) -> None:
        if topic == self._topic(COMMAND):
            self._on_command(payload)
            return
        try:
            ack = msgspec.json.decode(payload, type=Ack)
        except msgspec.DecodeError as exc:
            self._log.warning("unreadable_ack", detail=str(exc))
            return
        if ack.boot != self.boot:
            return
        if ack.seq > self.last_seq:
            self._replace_boot(ack)
        else:
            self._on_ack(ack)

    def _on_command(self, payload: bytes) -> None:
        try:
            policy = decode_command(payload)
        except MalformedCommand as exc:
            self._log.warning("unreadable_command", detail=str(exc))
            return
        if self.ignores_commands:
            return
        self.sampler.policy = policy
        self._log.info("sampling_policy_set", mode=policy.mode)
        self.pump()

    def _on_ack(self, ack: Ack) -> None:
        outbox, now_s = self._outbox, time.monotonic()
        is_new, self._newest_ack = ack != self._newest_ack, ack
        self._journal.delete(outbox.boot.boot_id, committed_spans(ack))
        covers_all = ack.seq >= outbox.sent_seq and not ack.missing
        self._ack_timeout.on_ack(now_s, covers_all=covers_all, is_new=is_new)
        if ack.hold_s > 0:
            self._held_until_s = now_s + ack.hold_s
            outbox.cancel_resends()
            self.pump()
            return
        self._held_until_s = None
        outbox.resend(
            self._retransmission.plan(
                ack, sent_seq=outbox.sent_seq, last_seq=outbox.last_seq, now_s=now_s
            )
        )
        outbox.given_up = self._journal.count_given_up(outbox.boot.boot_id)
        self.pump()

    def _replace_boot(self, ack: Ack) -> None:
        """Begin a new boot: the platform has seqs that this journal never used.

        The journal was restored from a backup. The platform has other fixes under the seqs written
        since then, so those fixes get new seqs. Of the backup's own fixes, the missing ones do.
        """
        old_boot, last_seq = self._outbox.boot, self.last_seq
        pending = self._journal.pending_between(old_boot.boot_id, 1, last_seq, last_seq)
        kept = [
            payload
            for seq, payload in pending
            if seq > old_boot.last_seq or any(first <= seq <= last for first, last in ack.missing)
        ]
        self._log.error("journal_restored_from_backup", boot=old_boot.boot, kept=len(kept))
        self._outbox = Outbox(self._journal, self._journal.begin_boot(self.driver_id))
        self._retransmission = self._new_retransmission()
        self._newest_ack = None
        self._held_until_s = None
        self._reported_given_up = (0.0, 0)
        for payload in kept:
            fix = msgspec.json.decode(payload)
            self.write({name: fix[name] for name in fix if name not in ("boot", "seq")})
        self._journal.delete(old_boot.boot_id, [(1, last_seq)])
        self._journal.commit()
        self._resend_pending()

    def _new_retransmission(self) -> Retransmission:
        return Retransmission(self._journal, self._outbox.boot, self._ack_timeout.base_s)

    def _status(self, status: str) -> bytes:
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        given_up = {"given_up": self.given_up} if self.given_up else {}
        return msgspec.json.encode({"status": status, "at": at, **given_up})

    def _topic(self, kind: str) -> str:
        return topic_of(self.driver_id, kind)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, or return early on `stop()`."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


def make_login(
    driver_id: str, settings: DeviceSettings, fleet: FleetSecrets, *, mqtt_5: bool = False
) -> Login:
    """Return the login of a device at the broker that is responsible for it."""
    return Login(
        broker=broker_of(driver_id, settings.mqtt_url),
        username=driver_id,
        password=fleet.mqtt_password(driver_id),
        will_topic=topic_of(driver_id, STATUS),
        mqtt_5=mqtt_5,
    )
