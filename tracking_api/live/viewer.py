"""One viewer: the protocol of a connection taken over from uvicorn.

Frames are written straight to the connection. Once the kernel's send buffer is full, the viewer is
paused: the latest position is kept and replaces the one before, other frames are queued in order. A
viewer that stays paused is disconnected by the connection manager.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import Counter

from tracking_api.live.frames import SSE_LAST_CHUNK, Frame, sse_heartbeat, sse_retry

if TYPE_CHECKING:
    from tracking_api.live.connection_manager import ConnectionManager

SKIPPED = Counter("doorstep_live_skipped", "Positions replaced by newer ones before sending.")

MAX_RECEIVED_BYTES = 4096  # from an SSE viewer, which has nothing to send
CLOSE_WITHIN_S = 2.0  # after the last frame


def _nothing() -> None:
    """Release nothing: no server counts this connection."""


class Viewer(asyncio.Protocol):
    """A viewer over SSE. `token_sha256` is the token that it was admitted with."""

    __slots__ = (
        "_connections",
        "_latest",
        "_on_disconnect",
        "_queue",
        "_received_bytes",
        "bucket",
        "closing",
        "disconnected",
        "is_polled",
        "paused",
        "release",
        "token_sha256",
        "transport",
    )
    transport: asyncio.Transport

    def __init__(
        self,
        connections: ConnectionManager,
        token_sha256: bytes,
        on_disconnect: Callable[[Viewer], None],
    ) -> None:
        self._connections = connections
        self._on_disconnect = on_disconnect
        self._latest: Frame | None = None
        self._queue: list[Frame] | None = None
        self._received_bytes = 0
        self.bucket = 0
        self.closing = False  # the last frame has been sent or queued
        self.disconnected = False
        self.is_polled = False  # a customer's: the hub's polls find out whether the link is good
        self.paused = False
        self.release: Callable[[], None] = _nothing  # set by `detach`
        self.token_sha256 = token_sha256

    def attach(
        self,
        transport: asyncio.Transport,
        head: bytes = b"",
        frames: Iterable[Frame] = (),
    ) -> None:
        """Own the connection.

        The answer's head, where it has not been sent, and the first frames leave in one write.
        """
        self.transport = transport
        first = b"".join(map(self.encode, frames))
        transport.write(head + sse_retry(self._connections.draw_retry_ms()) + first)

    @property
    def queue_length(self) -> int:
        """How many frames are queued."""
        return len(self._queue or ())

    # -- sending -----------------------------------------------------------------------------

    def send_latest(self, frame: Frame) -> None:
        """Send a frame that replaces earlier ones: a paused viewer gets only the latest."""
        if not self.paused:
            self.transport.write(self.encode(frame))
            return
        if self._latest is not None:
            SKIPPED.inc()
        self._latest = frame

    def send(self, frame: Frame) -> None:
        """Send a frame that must not be skipped; it is queued for a paused viewer."""
        if not self.paused:
            self.transport.write(self.encode(frame))
        elif self._queue is None:
            self._queue = [frame]
        else:
            self._queue.append(frame)

    def heartbeat(self) -> None:
        """Send a heartbeat."""
        if not self.paused:
            self.transport.write(sse_heartbeat(self._connections.draw_retry_ms()))

    def finish(self, frame: Frame) -> None:
        """Send the last frame, and close within CLOSE_WITHIN_S whether it is read or not."""
        if self.closing:
            return
        self.send(frame)
        self.closing = True
        if not self.paused:
            self._close()
        asyncio.get_running_loop().call_later(CLOSE_WITHIN_S, self.disconnect)

    def disconnect(self) -> None:
        """Abort the connection; unread frames are lost."""
        self.closing = True
        if not self.disconnected:
            self.transport.abort()

    def encode(self, frame: Frame) -> bytes:
        """Return the frame's bytes for this viewer."""
        return frame.sse

    def _close(self) -> None:
        self.transport.write(SSE_LAST_CHUNK)
        self.transport.close()

    # -- asyncio.Protocol --------------------------------------------------------------------

    def pause_writing(self) -> None:
        self.paused = True
        self._connections.mark_paused(self)

    def resume_writing(self) -> None:
        self.paused = False
        self._connections.mark_resumed(self)
        queue, self._queue = self._queue or [], None
        for frame in queue:
            self.send(frame)  # may pause again
        latest, self._latest = self._latest, None
        if latest is not None:
            self.send_latest(latest)
        if self.closing and not self.paused:
            self._close()

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        if self._received_bytes > MAX_RECEIVED_BYTES:
            self.disconnect()

    def connection_lost(self, _: Exception | None) -> None:
        self.closing = self.disconnected = True
        self.release()
        self._connections.remove(self)
        self._on_disconnect(self)
