"""A streaming answer: uvicorn and the middleware send its head, its viewer sends the frames."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from starlette.responses import Response
from starlette.types import Scope, Send

from tracking_api.live.connection_manager import ConnectionManager
from tracking_api.live.detachable_protocol import detach, disable_chunking
from tracking_api.live.viewer import Viewer
from tracking_api.live.websocket import SocketViewer

SSE_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}


class LiveResponse(Response):
    """A stream. With `handshake`, the headers that accept a WebSocket, else SSE."""

    def __init__(
        self,
        connections: ConnectionManager,
        token_sha256: bytes,
        handshake: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status_code=101 if handshake else 200, headers=handshake or SSE_HEADERS)
        del self.headers["content-length"]
        self._connections = connections
        self._token_sha256 = token_sha256

    @property
    def is_websocket(self) -> bool:
        """Whether it is a WebSocket."""
        return self.status_code == 101

    @asynccontextmanager
    async def started(
        self, scope: Scope, send: Send, on_disconnect: Callable[[Viewer], None]
    ) -> AsyncIterator[Viewer]:
        """Send the head and take the connection over. Raises ConnectionError if it is closed.

        An exception in the block closes it: with heartbeats alone it would look healthy for ever.
        """
        if self.is_websocket:
            disable_chunking(scope)
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        viewer_class = SocketViewer if self.is_websocket else Viewer
        viewer = viewer_class(self._connections, self._token_sha256, on_disconnect)
        viewer.attach(detach(scope, viewer))
        self._connections.add(viewer)
        try:
            yield viewer
        except BaseException:
            viewer.disconnect()
            raise
