"""An answer that goes on: its head by uvicorn and the middleware, its frames by whoever enters."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from starlette.responses import Response
from starlette.types import Scope, Send

from tracking_api.live.connection_manager import ConnectionManager
from tracking_api.live.detachable_protocol import take_over, without_chunks
from tracking_api.live.viewer import Viewer
from tracking_api.live.websocket import SocketViewer

RETRY_MS = (500, 2500)  # each viewer's own: after a restart they don't come back all at once
SSE_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}


class LiveResponse(Response):
    """`accepting` are the headers that accept a WebSocket; without them it is SSE."""

    def __init__(
        self, crowd: ConnectionManager, sha256: bytes, accepting: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status_code=101 if accepting else 200, headers=accepting or SSE_HEADERS)
        del self.headers["content-length"]
        self._crowd = crowd
        self._sha256 = sha256

    @property
    def is_socket(self) -> bool:
        """Whether it is a WebSocket."""
        return self.status_code == 101

    async def start(self, scope: Scope, send: Send, on_gone: Callable[[Viewer], None]) -> Viewer:
        """Send the head and take the connection. Raises ConnectionError if it is closed already."""
        if self.is_socket:
            without_chunks(scope)
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        kind = SocketViewer if self.is_socket else Viewer
        viewer = kind(self._crowd, self._sha256, on_gone)
        viewer.begin(take_over(scope, viewer), random.randint(*RETRY_MS))
        self._crowd.join(viewer)
        return viewer
