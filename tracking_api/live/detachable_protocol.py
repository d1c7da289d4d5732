"""Take a connection over from uvicorn, for answers that go on for hours.

An ASGI answer costs a task, a queue and an await per chunk (28 us a push); a write to the
connection itself costs 5. So a stream's route answers as any other, with head and middleware, and
then takes the connection: from there on its viewer is the connection's protocol.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from starlette.types import Scope

from doorstep.http.guarded_protocol import GuardedProtocol, connection_of

# What one viewer may leave unread in the kernel before it counts as slow: a snapshot of 2 KB and
# some twenty position frames. The kernel doubles it, for its own bookkeeping.
SEND_BUFFER_BYTES = 16 * 1024
UNACKNOWLEDGED_MS = 20_000  # with a heartbeat every 10 s, a vanished viewer is gone within 30 s


class DetachableProtocol(GuardedProtocol):
    """uvicorn's HTTP protocol, which gives its connection away when asked."""

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to warn of: a WebSocket's route is one of ours."""

    def hand_over(self) -> asyncio.Transport:
        """Let go of the connection. uvicorn neither reads it nor closes it from now on."""
        self.connections.discard(self)
        self.stop_deadlines()
        self.authenticate()
        self._unset_keepalive_if_required()
        self.cycle.disconnected = True  # its answer is over, as far as uvicorn is concerned
        self.pipeline.clear()
        return self.transport


def without_chunks(scope: Scope) -> None:
    """Let the head that goes out next have no `Transfer-Encoding`: a 101 must not."""
    owner = connection_of(scope)
    if owner is not None:
        owner.cycle.chunked_encoding = False


class Releasing(Protocol):
    """A protocol that calls `release` once its connection is lost."""

    release: Callable[[], None]


def take_over(scope: Scope, protocol: Releasing) -> asyncio.Transport:
    """Make `protocol` the owner of this request's connection, and return the connection.

    The connection counts against the server's bound until `protocol` calls its `release`.
    Raises ConnectionError if it is closed already.
    """
    owner = connection_of(scope)
    if not isinstance(owner, DetachableProtocol) or owner.transport.is_closing():
        raise ConnectionError("the connection is closed")
    transport = owner.hand_over()
    protocol.release = owner.release
    transport.set_protocol(cast("asyncio.BaseProtocol", protocol))
    connection: Any = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
    transport.set_write_buffer_limits(high=0)  # what the kernel doesn't take means: slow
    if owner.flow.read_paused:
        transport.resume_reading()
    return transport
