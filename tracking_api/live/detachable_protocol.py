"""Take a connection over from uvicorn, for answers that go on for hours.

An ASGI answer costs a task, a queue and an await per chunk (28 us a push); a write to the
connection itself costs 5. So a stream's route answers as any other, with head and middleware, and
then takes the connection: from there on its viewer is the connection's protocol.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXTENSION = "doorstep.connection"

# What one viewer may leave unread in the kernel before it counts as slow: a snapshot of 2 KB and
# some twenty position frames. The kernel doubles it, for its own bookkeeping.
SEND_BUFFER_BYTES = 16 * 1024
UNACKNOWLEDGED_MS = 20_000  # with a heartbeat every 10 s, a vanished viewer is gone within 30 s


class DetachableProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which gives its connection away when asked."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # weak: the protocol holds the scope, and a circle would outlive every request
        self.scope["extensions"] = {EXTENSION: weakref.ref(self)}  # type: ignore[dict-item]

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to warn of: a WebSocket's route is one of ours."""

    def hand_over(self) -> asyncio.Transport:
        """Let go of the connection. uvicorn neither reads it nor closes it from now on."""
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        self.cycle.disconnected = True  # its answer is over, as far as uvicorn is concerned
        self.pipeline.clear()
        return self.transport


def without_chunks(scope: Scope) -> None:
    """Let the head that goes out next have no `Transfer-Encoding`: a 101 must not."""
    holder: weakref.ref[DetachableProtocol] = scope["extensions"][EXTENSION]
    owner = holder()
    if owner is not None:
        owner.cycle.chunked_encoding = False


def take_over(scope: Scope, protocol: asyncio.Protocol) -> asyncio.Transport:
    """Make `protocol` the owner of this request's connection, and return the connection.

    Raises ConnectionError if it is closed already.
    """
    holder: weakref.ref[DetachableProtocol] = scope["extensions"][EXTENSION]
    owner = holder()
    if owner is None or owner.transport.is_closing():
        raise ConnectionError("the connection is closed")
    transport = owner.hand_over()
    transport.set_protocol(protocol)
    connection: Any = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
    transport.set_write_buffer_limits(high=0)  # what the kernel doesn't take means: slow
    if owner.flow.read_paused:
        transport.resume_reading()
    return transport
