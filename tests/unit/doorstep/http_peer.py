"""An HTTP server on loopback that answers as well or as badly as a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

PATIENCE_S = 60.0
Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]
Request = tuple[dict[str, str], bytes]


class Peer:
    """Keeps each request's headers and body, then replies. `replies_ended`: of those, how many."""

    def __init__(self, reply: Reply) -> None:
        self.requests: list[Request] = []
        self.url = ""
        self.replies_ended = 0
        self._reply = reply
        self._news = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            pairs = (line.split(": ", 1) for line in lines[1:] if line)
            headers = {name.lower(): value for name, value in pairs}
            body = await reader.readexactly(int(headers["content-length"]))
            await self._note((headers, body))
            await self._reply(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            await self._note()

    async def _note(self, *requests: Request) -> None:
        async with self._news:
            self.requests += requests
            self.replies_ended += not requests
            self._news.notify_all()

    async def until(self, is_so: Callable[[Peer], bool]) -> None:
        """Wait for requests, or for ends of replies."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: is_so(self))


@asynccontextmanager
async def peer(reply: Reply) -> AsyncIterator[Peer]:
    """Serve until the end, then drop the connections."""
    found, handlers = Peer(reply), set[asyncio.Task[None]]()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.create_task(found.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    try:
        yield found
    finally:
        server.close()
        for one in handlers:
            one.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def answering(status: int, *headers: str) -> Reply:
    """Answer at once."""
    lines = [f"HTTP/1.1 {status} Some", "content-length: 0", *headers]

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await writer.drain()

    return reply


def dripping(start: bytes, drop: bytes, every_s: float = 0.01) -> Reply:
    """Never end, and never pause for long: a time-out between two reads does not help."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(every_s)

    return reply


DRIPPING_HEAD = dripping(b"HTTP/1.1 201 Created\r\n", b"x: 1\r\n", every_s=0.1)
DRIPPING_BODY = dripping(b"HTTP/1.1 201 Created\r\ncontent-length: 16000\r\n\r\n", b"1", 0.1)
ENDLESS_BODY = dripping(
    b"HTTP/1.1 201 Created\r\ncontent-length: 1000000000\r\n\r\n", b"1" * 65_536, 0
)
