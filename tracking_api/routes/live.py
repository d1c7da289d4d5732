"""Streams: an order for its customer, over SSE or a WebSocket."""

from __future__ import annotations

import random
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from doorstep.credentials import token_sha256
from doorstep.web.openapi import problems
from tracking_api.live.hub import ENDED
from tracking_api.live.service import Live
from tracking_api.live.takeover import take_over
from tracking_api.live.viewer import Viewer
from tracking_api.routes.parts import Have, LinkTokenFound, address_of
from tracking_api.routes.track import OPTIONAL_TOKEN, OrderIdText

router = APIRouter(prefix="/track/{order_id}", tags=["live"])

RETRY_MS = (500, 2500)  # each viewer's own: after a restart they don't come back all at once
MEDIA_TYPE = "text/event-stream"

Cursor = Annotated[
    str | None,
    Query(
        alias="last_event_id",
        max_length=40,
        description="The id of the last frame seen, where no header can be sent.",
    ),
]


class OrderStream(Response):
    """An answer that goes on: its head by uvicorn, its frames by the hub."""

    media_type = MEDIA_TYPE

    def __init__(self, live: Live, order_id: UUID, sha256: bytes, cursor: str | None) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._live, self._order_id = live, order_id
        self._sha256, self._cursor = sha256, cursor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hub, crowd = self._live.hub, self._live.crowd
        async with hub.opened(self._order_id) as watched:
            order = watched.tracked
            if order and order.state in ENDED and self._cursor == str(order.order_seq):
                await Response(status_code=204)(scope, receive, send)  # EventSource stops at that
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            viewer = Viewer(crowd, self._sha256, lambda gone: hub.leave(watched, gone))
            viewer.begin(take_over(scope, viewer), random.randint(*RETRY_MS))
            crowd.join(viewer)
            hub.enter(watched, viewer, self._cursor)


@router.get(
    "/stream",
    summary="Follow an order: server-sent events",
    responses={
        200: {
            "description": "`snapshot`, then `order` and `position` as they come, then `end`.",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
        204: {"description": "The order has ended, and the cursor has seen it: don't come back."},
        **problems(404, 429),
    },
    response_class=Response,
    openapi_extra=OPTIONAL_TOKEN,
)
async def follow_order(
    request: Request,
    order_id: OrderIdText,
    token: LinkTokenFound,
    parts: Have,
    cursor: Cursor = None,
    last_event_id: Annotated[str | None, Header(max_length=40)] = None,
) -> Response:
    """The first frame is what GET /track answers. `Last-Event-ID` resumes after that event."""
    admitted, holder = await parts.links.admit(order_id, token, address_of(request))
    sha256 = token_sha256(token or "")
    parts.live.crowd.check_room(sha256, staff=holder.role == "staff")
    return OrderStream(parts.live, admitted, sha256, last_event_id or cursor)
