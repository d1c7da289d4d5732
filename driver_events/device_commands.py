"""How devices are to report, from the database to the brokers, which keep it for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from prometheus_client import Counter

from doorstep.sampling import encode_command
from doorstep.store import fix_writer
from driver_events.recorder import Connection

SENT = Counter("doorstep_driver_events_commands", "Commands that a broker keeps for a device")
ROWS = 2000  # of some 150 bytes
CONFIRMED_WITHIN_S = 3.0  # below idle_in_transaction_session_timeout (5 s): the lock is held

IsConfirmed = Callable[[], bool]


class Sender(Protocol):
    """The way to the brokers: MQTT, or a stand-in in unit tests."""

    @property
    def connects(self) -> int:
        """How often a broker was connected to so far."""

    def send_command(self, driver_id: str, payload: bytes) -> IsConfirmed | None:
        """Publish, retained; None if the driver's broker is away."""


class CommandPublisher:
    """Publishes settings that wait. One process at a time does: the database has a lock for it."""

    def __init__(
        self,
        connection: Connection,
        sender: Sender,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = connection
        self._sender = sender
        self._clock = clock
        self._sleep = sleep
        self._connects = 0

    def publish(self) -> bool:
        """Publish what waits; True if there may be more. Raises Unavailable.

        1. After a (re)connect, everything waits again: a killed broker forgets.
        2. Take what waits, under the lock, and publish it.
        3. Confirm what the brokers have confirmed, and commit; the rest is for the next time.
        """
        connects = self._sender.connects
        with self._connection.transaction() as conn:
            # Step 1
            if connects != self._connects:
                fix_writer.renew_reporting(conn)
            # Step 2
            taken = fix_writer.take_reporting(conn, ROWS)
            sent = [
                (driver_id, version, self._sender.send_command(driver_id, encode_command(report)))
                for driver_id, version, report in taken
            ]
            # Step 3: and the commit at the end of the block
            confirmed = self._await_confirmed(sent)
            fix_writer.confirm_reporting(conn, confirmed)
        self._connects = connects
        SENT.inc(len(confirmed))
        return len(taken) == ROWS == len(confirmed)

    def _await_confirmed(
        self, sent: list[tuple[str, int, IsConfirmed | None]]
    ) -> list[tuple[str, int]]:
        deadline = self._clock() + CONFIRMED_WITHIN_S
        confirmed = []
        for driver_id, version, is_confirmed in sent:
            if is_confirmed is None:
                continue
            while not (done := is_confirmed()) and self._clock() < deadline:
                self._sleep(0.01)
            if done:
                confirmed.append((driver_id, version))
        return confirmed
