"""One viewer: the protocol of a connection that was taken over.

Frames are written straight to the connection. What the kernel doesn't take makes the viewer slow:
then a position waits in a slot that keeps only the latest, and events wait in their order. A
viewer that stays slow is cut by the crowd.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import Counter

from tracking_api.live.frames import SSE_HEARTBEAT, SSE_LAST_CHUNK, Frame

if TYPE_CHECKING:
    from tracking_api.live.connection_manager import ConnectionManager

SKIPPED = Counter("doorstep_live_skipped", "Positions that a slow viewer never got.")

MOST_UNREAD_BYTES = 4096  # what an SSE viewer may send us, who has nothing to say
CLOSE_WITHIN_S = 2.0  # after the last frame


def _nothing() -> None:
    """Release nothing: no server counts this connection."""


class Viewer(asyncio.Protocol):
    """A viewer over SSE. `token_sha256` is what it was let in with."""

    __slots__ = (
        "_backlog",
        "_crowd",
        "_on_gone",
        "_received_bytes",
        "_slot",
        "bucket",
        "closing",
        "gone",
        "paused",
        "release",
        "token_sha256",
        "transport",
    )
    transport: asyncio.Transport

    def __init__(
        self, crowd: ConnectionManager, token_sha256: bytes, on_gone: Callable[[Viewer], None]
    ) -> None:
        self._crowd = crowd
        self._on_gone = on_gone
        self._slot: Frame | None = None
        self._backlog: list[Frame] | None = None
        self._received_bytes = 0
        self.bucket = 0
        self.closing = False  # the last frame is on its way
        self.gone = False
        self.paused = False
        self.release: Callable[[], None] = _nothing  # set by who hands the connection over
        self.token_sha256 = token_sha256

    def begin(self, transport: asyncio.Transport, retry_ms: int) -> None:
        """Own the connection. `retry_ms`: how long EventSource waits before it comes back."""
        self.transport = transport
        line = b"retry: %d\n" % retry_ms
        transport.write(b"%x\r\n%b\r\n" % (len(line), line))

    @property
    def waiting(self) -> int:
        """How many frames wait for it to read."""
        return len(self._backlog or ())

    # -- what is sent ------------------------------------------------------------------------

    def show(self, frame: Frame) -> None:
        """Send a position; a slow viewer gets only the latest."""
        if not self.paused:
            self.transport.write(self.bytes_of(frame))
            return
        if self._slot is not None:
            SKIPPED.inc()
        self._slot = frame

    def tell(self, frame: Frame) -> None:
        """Send what must not be skipped; it waits for a slow viewer."""
        if not self.paused:
            self.transport.write(self.bytes_of(frame))
        elif self._backlog is None:
            self._backlog = [frame]
        else:
            self._backlog.append(frame)

    def heartbeat(self) -> None:
        """Show that the stream lives."""
        if not self.paused:
            self.transport.write(SSE_HEARTBEAT)

    def finish(self, frame: Frame) -> None:
        """Send the last frame and close, soon, whether it is read or not."""
        if self.closing:
            return
        self.tell(frame)
        self.closing = True
        if not self.paused:
            self._close()
        asyncio.get_running_loop().call_later(CLOSE_WITHIN_S, self.cut)

    def cut(self) -> None:
        """Close at once; what was not read is lost."""
        self.closing = True
        if not self.gone:
            self.transport.abort()

    def bytes_of(self, frame: Frame) -> bytes:
        """The frame as this viewer reads it."""
        return frame.sse

    def _close(self) -> None:
        self.transport.write(SSE_LAST_CHUNK)
        self.transport.close()

    # -- what the connection says ------------------------------------------------------------

    def pause_writing(self) -> None:
        self.paused = True
        self._crowd.slow(self)

    def resume_writing(self) -> None:
        self.paused = False
        self._crowd.fast(self)
        backlog, self._backlog = self._backlog or [], None
        for frame in backlog:
            self.tell(frame)  # which may be too much again
        slot, self._slot = self._slot, None
        if slot is not None:
            self.show(slot)
        if self.closing and not self.paused:
            self._close()

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        if self._received_bytes > MOST_UNREAD_BYTES:
            self.cut()

    def connection_lost(self, _: Exception | None) -> None:
        self.closing = self.gone = True
        self.release()
        self._crowd.leave(self)
        self._on_gone(self)
