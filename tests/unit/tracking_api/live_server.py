"""A served world, and the streams that a test follows on it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import httpx
from websockets.asyncio.client import connect

from tests.unit.tracking_api.live_world import Shown, World, frames_of
from tracking_api.live.service import Live

PATIENCE_S = 30


class Server:
    """A served world; `live` is the server's own, so that a test can drive it."""

    def __init__(self, world: World, url: str, live: Live) -> None:
        self.world = world
        self.url = url
        self.live = live

    @asynccontextmanager
    async def follow(
        self, order_id: UUID, cursor: str | None = None, token: str | None = None
    ) -> AsyncIterator[Reader]:
        """Open a stream with the customer's token and expect 200."""
        headers = {"Authorization": f"Bearer {token or f'tok-{order_id}'}"}
        if cursor is not None:
            headers["Last-Event-ID"] = cursor
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S) as client,
            client.stream("GET", f"/track/{order_id}/stream", headers=headers) as answer,
        ):
            assert answer.status_code == 200, await answer.aread()
            yield Reader(answer)

    def socket(self, order_id: UUID, **headers: str) -> connect:
        """Open a WebSocket, by default with the customer's bearer token."""
        headers = headers or {"Authorization": f"Bearer tok-{order_id}"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = self.url.replace("http", "ws")
        return connect(
            f"{url}/track/{order_id}/ws",
            additional_headers=named,
            compression=None,
            close_timeout=0.1,
        )

    async def get(self, path: str, token: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S) as client:
            return await client.get(path, headers={"Authorization": f"Bearer {token}"})

    async def poll(self) -> None:
        """Make every order due, and poll."""
        for hub in self.live.hubs:
            hub.drivers_moved(list(hub.watched_drivers))
            for order in self.world.orders.values():
                hub.order_changed(order.order_id, len(order.events))
            await hub.poll()


class Reader:
    """Reads frames from a stream."""

    def __init__(self, answer: httpx.Response) -> None:
        self._chunks = answer.aiter_text()
        self._text = ""
        self._frames: list[Shown] = []
        self.comments = 0

    async def next(self) -> Shown | None:
        """The next frame, or None at the end of the stream."""
        while not self._frames:
            async with asyncio.timeout(PATIENCE_S):
                chunk = await anext(self._chunks, None)
            if chunk is None:
                return None
            self.comments += chunk.count(":\n\n") - chunk.count(": :\n\n")
            whole, end, self._text = (self._text + chunk).rpartition("\n\n")
            self._frames = list(frames_of(whole + end))
        return self._frames.pop(0)

    async def kinds(self, count: int) -> list[str | None]:
        """The kinds of the next frames."""
        found = [await self.next() for _ in range(count)]
        return [one.kind if one else None for one in found]


async def holds(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.02)


async def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Read an answer until a chunk of it has `end`."""
    loop = asyncio.get_running_loop()
    found = b""
    async with asyncio.timeout(PATIENCE_S):
        while end not in found or not found.endswith(b"\n\r\n"):  # the whole chunk
            found += await loop.sock_recv(connection, 65536)
    return found


def unchunked(answer: bytes) -> str:
    """The text of an answer's chunks."""
    body = answer.partition(b"\r\n\r\n")[2]
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")  # in bytes, and an estimate's basis has a ×
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return found.decode()
