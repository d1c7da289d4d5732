"""A TCP proxy that simulates a slow, silent or broken network, and can be healed.

`black_hole` drops packets below TCP, as a pulled cable does: a socket filter drops every incoming
packet, so the peer's bytes are not acknowledged. Without the filter TCP continues. `swallow`
simulates a middlebox that acknowledges everything and forwards nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import random
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # <asm-generic/socket.h>
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # classic BPF: return 0 bytes of every packet
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s
READ_BYTES = 65_536
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Conditions:
    """The network's conditions. Chunks are delayed by `latency_s` +- `jitter_s`, in order."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    slice_bytes: int = 0  # 0: chunks are not sliced
    slice_gap_s: float = 0.001  # so that the kernel does not coalesce the slices
    bytes_per_s: float = 0.0  # per link and direction; 0: no limit


@dataclass(eq=False, slots=True)
class _Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    swallowed: bool = False  # bytes were dropped: the link stays silent
    is_half_open: bool = False  # the server side is closed, the client is not notified


class Proxy:
    """`with Proxy(to_port) as proxy:` runs it in a thread. Call its methods from other threads.

    `bytes_up` counts the bytes from clients to the server, `bytes_down` those back.
    """

    def __init__(self, to_port: int, port: int = 0, host: str = "127.0.0.1") -> None:
        self.bytes_up = self.bytes_down = self.accepted = 0
        self._target = (host, to_port)
        self._listener = socket.create_server((host, port), backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._conditions = Conditions()
        self._drop_from_client = self._drop_from_server = self._swallowing = False
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def open_links(self) -> int:
        """The number of open connections, half-open ones included."""
        return len(self._links)

    def set(self, conditions: Conditions) -> None:
        """Set the conditions for chunks that arrive from now on."""
        self._call(lambda: setattr(self, "_conditions", conditions))

    def black_hole(self, *, up: bool = True, down: bool = True) -> None:
        """Drop every packet from the clients (`up`), from the server (`down`), or both."""

        def apply() -> None:
            self._drop_from_client, self._drop_from_server = up, down
            drop_incoming(self._listener, up)
            for link in self._links:
                self._apply(link)

        self._call(apply)

    def swallow(self) -> None:
        """Acknowledge everything, also on new connections, and forward nothing.

        A connection that has lost bytes stays silent after `heal()`.
        """

        def apply() -> None:
            self._swallowing = True
            for link in self._links:
                link.swallowed = True

        self._call(apply)

    def half_open(self) -> None:
        """Close the server's side of every connection without notifying the client."""

        def apply() -> None:
            for link in self._links:
                link.is_half_open = True
                self._apply(link)
                link.server.transport.abort()

        self._call(apply)

    def cut(self) -> None:
        """Reset every connection, on both sides."""

        def reset() -> None:
            for link in list(self._links):
                for writer in (link.client, link.server):
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                    writer.transport.abort()

        self._call(reset)

    def heal(self) -> None:
        """Forward everything again, except on swallowed and half-open connections."""
        self._call(lambda: setattr(self, "_swallowing", False))
        self.set(Conditions())
        self.black_hole(up=False, down=False)

    # -- in the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        start = asyncio.start_server(self._accept, sock=self._listener, backlog=BACKLOG)
        server = self._loop.run_until_complete(start)
        self._loop.run_forever()
        server.close()
        for task in (left := asyncio.all_tasks(self._loop)):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))  # the transports' last callbacks
        self._loop.close()

    def _call(self, work: Callable[[], None]) -> None:
        """Run `work` in the proxy's thread, and wait for it."""

        async def run() -> None:
            work()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def _apply(self, link: _Link) -> None:
        """Set or remove the filters of both ends. Keep-alive detects a dead peer afterwards."""
        for writer, drop in (
            (link.client, self._drop_from_client or link.is_half_open),
            (link.server, self._drop_from_server),
        ):
            sock = writer.get_extra_info("socket")
            if sock.fileno() >= 0:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, not drop)
                drop_incoming(sock, drop)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._link(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            from_server, to_server = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, to_server, swallowed=self._swallowing)
        self._links.add(link)
        try:
            self._apply(link)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(link, reader, to_server, up=True))
                group.create_task(self._forward(link, from_server, writer, up=False))
        except* OSError:  # one end is closed: close the other
            to_server.transport.abort()
            writer.transport.abort()
        finally:
            self._links.discard(link)
            to_server.close()
            writer.close()

    async def _forward(
        self, link: _Link, reader: asyncio.StreamReader, to: asyncio.StreamWriter, *, up: bool
    ) -> None:
        """Forward one direction, each slice when it is due."""
        due_at = 0.0
        while data := await reader.read(READ_BYTES):
            if link.swallowed:
                continue
            if up:
                self.bytes_up += len(data)
            else:
                self.bytes_down += len(data)
            now, network = self._loop.time(), self._conditions
            late_s = network.latency_s + random.uniform(-network.jitter_s, network.jitter_s)
            due_at = max(due_at, now + max(0.0, late_s))
            size = network.slice_bytes or len(data)
            for first in range(0, len(data), size):
                piece = data[first : first + size]
                if due_at <= now:
                    to.write(piece)
                else:
                    self._loop.call_at(due_at, _write, to, piece)
                gap_s = network.slice_gap_s if network.slice_bytes else 0.0
                pace_s = len(piece) / network.bytes_per_s if network.bytes_per_s else 0.0
                due_at += max(gap_s, pace_s, 1e-6)  # equal timers may run out of order
            await to.drain()
            await asyncio.sleep(due_at - self._loop.time() - network.latency_s - network.jitter_s)
        await asyncio.sleep(due_at - self._loop.time())
        if link.is_half_open:
            await asyncio.Event().wait()  # the other side must not be notified
        to.write_eof()


def _write(to: asyncio.StreamWriter, piece: bytes) -> None:
    if not to.transport.is_closing():
        to.write(piece)


def drop_incoming(sock: Any, drop: bool) -> None:
    """Drop every packet that arrives on a socket, or stop dropping."""
    if not drop:
        with contextlib.suppress(OSError):  # there was no filter
            sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        return
    program = ctypes.create_string_buffer(DROP_ALL)
    filters = struct.pack("HP", 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filters)
