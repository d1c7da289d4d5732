"""A source's connection: points go out with QoS 1, and again if nobody acknowledged them."""

from __future__ import annotations

import asyncio
import random
import time

from device.connection import Connection, ConnectionFailed, Login
from doorstep.mqtt_topics import SERIES_PREFIX
from doorstep.telemetry import get_logger

TICK_S = 2.0
MOST_WAITING = 100_000  # points of an outage; older ones are given up
RECONNECT_S = (0.25, 5.0)


class Publisher:
    """Publishes points of one source. All methods belong to the running loop's thread."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._connection: Connection | None = None
        self._waiting: dict[int, tuple[str, bytes]] = {}  # without a PUBACK, the oldest first
        self._unsent: list[tuple[str, bytes]] = []
        self._log = get_logger(source_id=login.username)

    @property
    def waiting(self) -> int:
        """How many points the broker has not acknowledged."""
        return len(self._waiting) + len(self._unsent)

    def publish(self, measure: str, payload: bytes) -> None:
        """Publish a point, or keep it until there is a connection."""
        self._unsent.append((f"{SERIES_PREFIX}{self._login.username}/{measure}", payload))
        if self._connection is not None:
            self._send()
        elif len(self._unsent) > MOST_WAITING:
            del self._unsent[: MOST_WAITING // 10]
            self._log.warning("points_given_up", points=MOST_WAITING // 10)

    async def settle(self, within_s: float) -> None:
        """Wait until every point is acknowledged, if it is within so long."""
        deadline = time.monotonic() + within_s
        while self.waiting:
            if time.monotonic() > deadline:
                self._log.warning("points_not_acknowledged", points=self.waiting)
                return
            await asyncio.sleep(0.05)

    async def run(self, stop: asyncio.Event) -> None:
        """Stay connected until `stop`, then say goodbye."""
        least_s, most_s = RECONNECT_S
        wait_s = least_s
        while not stop.is_set():
            connection = Connection(
                self._login, b"", self._on_puback, lambda _topic, _payload: None
            )
            try:
                await connection.open()
            except ConnectionFailed as exc:
                if wait_s == least_s:
                    self._log.warning("waiting_for_mqtt", error=str(exc))
                wait_s = min(most_s, 2 * wait_s)
                await asyncio.sleep(random.uniform(least_s, wait_s))
                continue
            wait_s = least_s
            self._unsent = [*self._waiting.values(), *self._unsent]
            self._waiting.clear()
            self._connection = connection
            self._send()
            await self._stay(connection, stop)
            self._connection = None
            await connection.disconnect()

    async def _stay(self, connection: Connection, stop: asyncio.Event) -> None:
        stopped = asyncio.create_task(stop.wait())
        lost = asyncio.create_task(connection.lost.wait())
        while not (stop.is_set() or connection.lost.is_set()):
            await asyncio.wait({stopped, lost}, timeout=TICK_S, return_when="FIRST_COMPLETED")
            connection.tick()
        stopped.cancel()
        lost.cancel()

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        for topic, payload in unsent:
            if self._connection is not None:
                self._waiting[self._connection.publish(topic, payload)] = (topic, payload)

    def _on_puback(self, message_id: int) -> None:
        self._waiting.pop(message_id, None)
