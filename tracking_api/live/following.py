"""Following a Kafka topic, or a series out of one: who may, over what, and the answer."""

from __future__ import annotations

from fastapi import Request
from starlette.types import Receive, Scope, Send

from doorstep.credentials import token_sha256
from tracking_api.context import AppContext
from tracking_api.live.response import LiveResponse
from tracking_api.live.topic_follower import Follower
from tracking_api.live.websocket import check_origin, shake_hands


class Seat:
    """A member of staff has room for one more stream, as SSE or as a WebSocket.

    Raises what refuses a handshake or another site's page, and TooManyViewers.
    """

    def __init__(self, request: Request, token: str | None, parts: AppContext) -> None:
        self.accepting: dict[str, str] | None = None
        if "upgrade" in request.headers:
            self.accepting = shake_hands(request)
            check_origin(request, parts.public_url)
        self.sha256 = token_sha256(token or "")
        self.parts = parts
        parts.live.crowd.check_room(self.sha256, staff=True)


class FollowerStream(LiveResponse):
    """What a follower of a topic is sent."""

    def __init__(self, seat: Seat, follower: Follower) -> None:
        super().__init__(seat.parts.live.crowd, seat.sha256, seat.accepting)
        self._topics = seat.parts.live.topics
        self._follower = follower

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        viewer = await self.start(scope, send, lambda _: self._topics.leave(self._follower))
        self._topics.enter(self._follower, viewer)
