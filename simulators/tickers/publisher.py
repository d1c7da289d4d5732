"""A source's connection: points go out with QoS 1, and again if not acknowledged."""

from __future__ import annotations

import asyncio
import random
import time

from device.connection import Connection, ConnectionFailed, Login
from doorstep.mqtt_topics import SERIES_PREFIX
from doorstep.telemetry import get_logger

TICK_S = 2.0
MAX_WAITING = 100_000  # points during an outage; older ones are dropped
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.25, 5.0


class Publisher:
    """Publishes the points of one source. All methods belong to the event loop's thread."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._connection: Connection | None = None
        self._waiting: dict[int, tuple[str, bytes]] = {}  # without a PUBACK, oldest first
        self._unsent: list[tuple[str, bytes]] = []
        self._log = get_logger(source_id=login.username)

    @property
    def waiting(self) -> int:
        """The number of points that the broker has not acknowledged."""
        return len(self._waiting) + len(self._unsent)

    def publish(self, measure: str, payload: bytes) -> None:
        """Publish a point, at once or when connected."""
        self._unsent.append((f"{SERIES_PREFIX}{self._login.username}/{measure}", payload))
        if self._connection is not None:
            self._send()
        elif len(self._unsent) > MAX_WAITING:
            del self._unsent[: MAX_WAITING // 10]
            self._log.warning("points_dropped", points=MAX_WAITING // 10)

    async def wait_acknowledged(self, timeout_s: float) -> None:
        """Wait until every point is acknowledged, up to `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.waiting:
            if time.monotonic() > deadline:
                self._log.warning("points_not_acknowledged", points=self.waiting)
                return
            await asyncio.sleep(0.05)

    async def run(self, stop: asyncio.Event) -> None:
        """Stay connected until `stop`, then disconnect."""
        wait_s = RECONNECT_MIN_S
        while not stop.is_set():
            connection = Connection(
                self._login, b"", self._on_puback, lambda _topic, _payload: None
            )
            try:
                await connection.open()
            except ConnectionFailed as exc:
                if wait_s == RECONNECT_MIN_S:
                    self._log.warning("waiting_for_mqtt", error=str(exc))
                wait_s = min(RECONNECT_MAX_S, 2 * wait_s)
                await asyncio.sleep(random.uniform(RECONNECT_MIN_S, wait_s))
                continue
            wait_s = RECONNECT_MIN_S
            self._unsent = [*self._waiting.values(), *self._unsent]
            self._waiting.clear()
            self._connection = connection
            self._send()
            await self._stay_connected(connection, stop)
            self._connection = None
            await connection.disconnect()

    async def _stay_connected(self, connection: Connection, stop: asyncio.Event) -> None:
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
