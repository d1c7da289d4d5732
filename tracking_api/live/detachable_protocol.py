"""Detach a connection from uvicorn, for answers that are open for hours.

An ASGI answer costs a task, a queue and an await per chunk (28 µs per push); a write to the
transport costs 5. So a stream's route sends its head through the middleware like any other, and
then detaches the connection: from there on its viewer is the connection's protocol.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from starlette.types import Scope

from doorstep.http.guarded_protocol import GuardedProtocol, connection_of

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

MAX_HELD_BYTES = 8 * 1024
_STREAM_HEAD = re.compile(rb"GET /track/[^ ?/]{36}/stream HTTP/1\.1\r\n")
ADMISSION = "stream_admission"  # in the state of the application's lifespan

# How much a viewer may leave unread in the kernel before it is paused: a snapshot of 2 KB and
# about twenty position frames. The kernel doubles it, for its own bookkeeping.
SEND_BUFFER_BYTES = 16 * 1024
UNACKNOWLEDGED_MS = 20_000  # with a heartbeat every 10 s, a vanished viewer is gone within 30 s


class Admission(Protocol):
    """Takes connections whose request it answers itself."""

    def hold(self, protocol: DetachableProtocol) -> None: ...

    def offer(self, protocol: DetachableProtocol, run_application: Callable[[], None]) -> bool: ...


class DetachableProtocol(GuardedProtocol):
    """uvicorn's HTTP protocol, whose connection can be detached.

    Requests are first offered to the application's `ADMISSION`. It also holds the heads of requests
    for streams, unparsed, until it calls `release_held`: other requests do not wait for them.
    """

    _held = b""

    def data_received(self, data: bytes) -> None:
        if self._held:
            self._held += data
            if len(self._held) > MAX_HELD_BYTES:
                self.release_held()
            return
        admission: Admission | None = self.app_state.get(ADMISSION)
        is_held = (
            admission is not None
            and self.cycle is None
            and not self._unframed_bytes
            and _STREAM_HEAD.match(data) is not None
            and data.endswith(b"\r\n\r\n")
            and len(data) <= MAX_HELD_BYTES
        )
        if admission is None or not is_held:
            super().data_received(data)
            return
        self._held = data
        self.stop_deadlines()  # the head is complete
        admission.hold(self)

    def release_held(self) -> None:
        """Parse what is held."""
        held, self._held = self._held, b""
        if held:
            super().data_received(held)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        admission: Admission | None = self.app_state.get(ADMISSION)
        start = partial(super()._start_asgi_task, cycle, app)
        is_offered = admission is not None and app is self.app and cycle is self.cycle
        if admission is None or not (is_offered and admission.offer(self, start)):
            start()

    def _unsupported_upgrade_warning(self) -> None:
        """WebSockets have ordinary routes here."""

    def detach(self) -> asyncio.Transport:
        """Release the connection: uvicorn no longer reads or closes it."""
        self.connections.discard(self)
        self.stop_deadlines()
        self.authenticate()
        self._unset_keepalive_if_required()
        self.cycle.disconnected = True  # for uvicorn the answer is complete
        self.pipeline.clear()
        return self.transport


def disable_chunking(scope: Scope) -> None:
    """Omit `Transfer-Encoding` from the next head: a 101 must not have it."""
    owner = connection_of(scope)
    if owner is not None:
        owner.cycle.chunked_encoding = False


def _set_options(found: Any) -> None:
    """Set a connection's options with one socket object: uvloop makes one for each option."""
    connection = socket.socket(found.family, found.type, found.proto, found.fileno())
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
    finally:
        connection.detach()


class Releasing(Protocol):
    """A protocol that calls `release` once its connection is lost."""

    release: Callable[[], None]


def detach(scope: Scope, protocol: Releasing) -> asyncio.Transport:
    """Make `protocol` the owner of this request's connection, and return its transport.

    The connection counts against the server's bound until `protocol` calls its `release`.
    Raises ConnectionError if it is closed.
    """
    owner = connection_of(scope)
    if not isinstance(owner, DetachableProtocol) or owner.transport.is_closing():
        raise ConnectionError("the connection is closed")
    return detach_from(owner, protocol)


def detach_from(owner: DetachableProtocol, protocol: Releasing) -> asyncio.Transport:
    """Make `protocol` the owner of an open connection, and return its transport."""
    transport = owner.detach()
    protocol.release = owner.release
    transport.set_protocol(cast("asyncio.BaseProtocol", protocol))
    _set_options(transport.get_extra_info("socket"))
    transport.set_write_buffer_limits(high=0)  # pause as soon as the kernel's buffer is full
    if owner.flow.read_paused:
        transport.resume_reading()
    return transport
