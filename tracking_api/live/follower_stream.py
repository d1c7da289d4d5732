"""The stream of a Kafka topic, or of a series out of one, for one member of staff."""

from __future__ import annotations

from fastapi import Request
from starlette.types import Receive, Scope, Send

from doorstep.credentials import token_sha256
from doorstep.http.origin import check_origin
from tracking_api.context import AppContext
from tracking_api.live.response import LiveResponse
from tracking_api.live.topic_follower import Follower
from tracking_api.live.viewer import Viewer
from tracking_api.live.websocket import accept_handshake


class StreamRequest:
    """A request for a stream, as SSE or as a WebSocket, that may be accepted.

    Raises UpgradeRequired, ForeignOrigin, TooManyViewers.
    """

    def __init__(self, request: Request, token: str | None, context: AppContext) -> None:
        self.handshake: dict[str, str] | None = None
        if "upgrade" in request.headers:
            self.handshake = accept_handshake(request)
            check_origin(request, context.public_url)
        self.token_sha256 = token_sha256(token or "")
        self.live = context.live
        self.live.connections.check_capacity(self.token_sha256, staff=True)


class FollowerStream(LiveResponse):
    """The frames of one follower of a topic."""

    def __init__(self, request: StreamRequest, follower: Follower) -> None:
        super().__init__(request.live.connections, request.token_sha256, request.handshake)
        self._topics = request.live.topics
        self._follower = follower

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        def on_disconnect(_: Viewer) -> None:
            self._topics.unsubscribe(self._follower)

        async with self.started(scope, send, on_disconnect) as viewer:
            self._topics.subscribe(self._follower, viewer)
