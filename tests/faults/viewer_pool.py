"""Viewers of live streams: hundreds of SSE clients in one thread that behave as browsers do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self

SMALL_BUFFER_BYTES = 4096  # receive buffer of a viewer that may stall
CONCURRENT_CONNECTS = 25
CONNECT_WITHIN_S = 10.0


@dataclass(eq=False, slots=True)
class Viewer:
    """A client of an order's stream. Instants are `time.monotonic()`."""

    order_id: str
    may_stall: bool = False
    tried_at: list[float] = field(default_factory=list)
    opened_at: float = 0.0
    first_frame_at: float = 0.0  # of the newest connection
    lost_at: list[float] = field(default_factory=list)
    lags: list[tuple[float, float]] = field(default_factory=list)  # (seen at, age of the fix, s)
    newest_fix_s: float = 0.0  # epoch
    retry_s: float = 3.0  # EventSource's default, until the server sends one
    last_id: bytes = b""
    writer: asyncio.StreamWriter | None = None

    @property
    def is_watching(self) -> bool:
        """Say whether the newest connection is open and has received a frame."""
        return self.first_frame_at > max(self.lost_at, default=0.0)

    def read_line(self, line: bytes) -> None:
        """Handle one line of the stream. Chunk sizes and comments are ignored."""
        name, _, value = line.strip().partition(b":")
        if name == b"retry":
            self.retry_s = int(value) / 1000
        elif name == b"id":
            self.last_id = value.strip()
        elif name == b"data":
            now = time.monotonic()
            if self.first_frame_at < self.opened_at:
                self.first_frame_at = now
            self._read_position(json.loads(value), now)

    def _read_position(self, data: dict[str, Any], now: float) -> None:
        if position := data.get("position"):
            fix_s = datetime.fromisoformat(position["properties"]["fix_at"]).timestamp()
            if fix_s > self.newest_fix_s:
                self.newest_fix_s = fix_s
                self.lags.append((now, time.time() - fix_s))


class ViewerPool:
    """`with ViewerPool(port, orders, token, 500) as pool:` runs the viewers."""

    def __init__(
        self,
        port: int,
        order_ids: Sequence[str],
        token: str,
        count: int,
        may_stall: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.viewers = [
            Viewer(order_ids[number % len(order_ids)], may_stall) for number in range(count)
        ]
        self._port, self._token, self._tls = port, token, tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="viewers", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def wait(self, holds: Callable[[Viewer], bool], within_s: float, what: str) -> None:
        """Wait until a condition holds for every viewer. Raises TimeoutError."""
        deadline = time.monotonic() + within_s
        while missing := sum(not holds(one) for one in self.viewers):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{missing} viewers: not within {within_s:.0f} s: {what}")
            time.sleep(0.1)

    def stall(self) -> None:
        """Stop reading and keep the connections open. Needs `may_stall`."""

        def pause() -> None:
            for one in self.viewers:
                if one.writer is not None:
                    one.writer.transport.pause_reading()  # type: ignore[attr-defined]

        self._loop.call_soon_threadsafe(pause)

    def lags(self, since: float, until: float) -> list[float]:
        """Return the age in seconds of each new position when a viewer received it."""
        return [
            lag_s for one in self.viewers for at, lag_s in list(one.lags) if since <= at < until
        ]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        gate = asyncio.Semaphore(CONCURRENT_CONNECTS)
        for one in self.viewers:
            self._loop.create_task(self._watch(one, gate))
        self._loop.run_forever()
        for task in (left := asyncio.all_tasks(self._loop)):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))  # the transports' last callbacks
        self._loop.close()

    async def _watch(self, one: Viewer, gate: asyncio.Semaphore) -> None:
        """Follow the stream for ever. Reconnect after the server's retry time."""
        async with gate:
            await asyncio.sleep(0.02)
        while True:
            one.tried_at.append(time.monotonic())
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await self._follow(one)
            one.lost_at.append(time.monotonic())
            await asyncio.sleep(one.retry_s)

    async def _follow(self, one: Viewer) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        if one.may_stall:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await self._loop.sock_connect(sock, ("127.0.0.1", self._port))
            one.opened_at = time.monotonic()
            name = "localhost" if self._tls else None
            async with asyncio.timeout(CONNECT_WITHIN_S):
                reader, one.writer = await asyncio.open_connection(
                    sock=sock, ssl=self._tls, server_hostname=name
                )
        except BaseException:
            sock.close()
            raise
        try:
            cursor = b"Last-Event-ID: %b\r\n" % one.last_id if one.last_id else b""
            one.writer.write(
                b"GET /track/%b/stream HTTP/1.1\r\nHost: viewers\r\n%bAuthorization: Bearer %b\r\n"
                b"\r\n" % (one.order_id.encode(), cursor, self._token.encode())
            )
            while line := await reader.readline():
                one.read_line(line)
        finally:
            one.writer.transport.abort()
            one.writer = None
