"""Detach a connection from uvicorn, for answers that are open for hours.

An ASGI answer costs a task, a queue and an await per chunk (28 µs per push); a write to the
transport costs 5. So a stream's route sends its head through the middleware like any other, and
then detaches the connection: from there on its viewer is the connection's protocol.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXTENSION = "doorstep.connection"

# How much a viewer may leave unread in the kernel before it is paused: a snapshot of 2 KB and
# about twenty position frames. The kernel doubles it, for its own bookkeeping.
SEND_BUFFER_BYTES = 16 * 1024
UNACKNOWLEDGED_MS = 20_000  # with a heartbeat every 10 s, a vanished viewer is gone within 30 s


class DetachableProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, whose connection can be detached."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # weak: a strong reference would make a cycle per request
        self.scope["extensions"] = {EXTENSION: weakref.ref(self)}  # type: ignore[dict-item]

    def _unsupported_upgrade_warning(self) -> None:
        """WebSockets have ordinary routes here."""

    def release(self) -> asyncio.Transport:
        """Release the connection: uvicorn no longer reads or closes it."""
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        self.cycle.disconnected = True  # for uvicorn the answer is complete
        self.pipeline.clear()
        return self.transport


def disable_chunking(scope: Scope) -> None:
    """Omit `Transfer-Encoding` from the next head: a 101 must not have it."""
    holder: weakref.ref[DetachableProtocol] = scope["extensions"][EXTENSION]
    owner = holder()
    if owner is not None:
        owner.cycle.chunked_encoding = False


def detach(scope: Scope, protocol: asyncio.Protocol) -> asyncio.Transport:
    """Make `protocol` the owner of this request's connection, and return its transport.

    Raises ConnectionError if it is closed already.
    """
    holder: weakref.ref[DetachableProtocol] = scope["extensions"][EXTENSION]
    owner = holder()
    if owner is None or owner.transport.is_closing():
        raise ConnectionError("the connection is closed")
    transport = owner.release()
    transport.set_protocol(protocol)
    connection: Any = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
    transport.set_write_buffer_limits(high=0)  # pause as soon as the kernel's buffer is full
    if owner.flow.read_paused:
        transport.resume_reading()
    return transport
