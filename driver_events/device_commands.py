"""Publishes sampling policies from the database to the brokers, which retain them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from prometheus_client import Counter

from doorstep.sampling import encode_command
from doorstep.store import fix_writer
from driver_events.recorder import Connection

SENT = Counter(
    "doorstep_driver_events_commands", "Commands that a broker has confirmed and retains"
)
MAX_ROWS = 2000  # of about 150 bytes
CONFIRMED_WITHIN_S = 3.0  # below idle_in_transaction_session_timeout (5 s): the lock is held

IsConfirmed = Callable[[], bool]


class CommandSender(Protocol):
    """The transport of commands: MQTT, or a fake in unit tests."""

    @property
    def connect_count(self) -> int:
        """How many times a broker has been connected."""

    def send_command(self, driver_id: str, payload: bytes) -> IsConfirmed | None:
        """Publish, retained; None if the driver's broker is unreachable."""


class CommandPublisher:
    """Publishes pending policies. A lock in the database admits one process at a time."""

    def __init__(
        self,
        connection: Connection,
        sender: CommandSender,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = connection
        self._sender = sender
        self._clock = clock
        self._sleep = sleep
        self._connect_count = 0

    def publish(self) -> bool:
        """Publish pending policies; True if there may be more. Raises Unavailable.

        1. After a (re)connect, mark all as pending: a killed broker may have lost them.
        2. Read the pending ones under the lock and publish them.
        3. Mark those that the brokers have confirmed, and commit; the others stay pending.
        """
        connect_count = self._sender.connect_count
        with self._connection.transaction() as conn:
            # Step 1
            if connect_count != self._connect_count:
                fix_writer.renew_reporting(conn)
            # Step 2
            taken = fix_writer.take_reporting(conn, MAX_ROWS)
            sent = [
                (driver_id, version, self._sender.send_command(driver_id, encode_command(report)))
                for driver_id, version, report in taken
            ]
            # Step 3; the block ends with the commit
            confirmed = self._await_confirmed(sent)
            fix_writer.confirm_reporting(conn, confirmed)
        self._connect_count = connect_count
        SENT.inc(len(confirmed))
        return len(taken) == MAX_ROWS == len(confirmed)

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
