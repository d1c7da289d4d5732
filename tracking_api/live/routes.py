"""Streams of one order, for its customer and staff: server-sent events, or a WebSocket."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from doorstep.credentials import token_sha256
from doorstep.http.openapi import problems
from tracking_api.context import AppContext, Context, LinkTokenFound, client_address
from tracking_api.live.response import LiveResponse
from tracking_api.live.websocket import check_origin, shake_hands
from tracking_api.track.routes import OPTIONAL_TOKEN, OrderIdText

router = APIRouter(prefix="/track/{order_id}", tags=["live"])

LastEventId = Annotated[str | None, Header(max_length=40)]
Cursor = Annotated[
    str | None,
    Query(
        alias="last_event_id",
        max_length=40,
        description="The id of the last frame seen, where no header can be sent.",
    ),
]


class OrderStream(LiveResponse):
    """The frames of one order."""

    def __init__(
        self,
        context: AppContext,
        order_id: UUID,
        sha256: bytes,
        cursor: str | None,
        accepting: dict[str, str] | None = None,
    ) -> None:
        super().__init__(context.live.crowd, sha256, accepting)
        self._hub = context.live.hub
        self._order_id, self._cursor = order_id, cursor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._hub.opened(self._order_id) as watched:
            if not self.is_socket and watched.is_over_for(self._cursor):
                await Response(status_code=204)(scope, receive, send)  # EventSource gives up
                return
            viewer = await self.start(scope, send, lambda gone: self._hub.leave(watched, gone))
            self._hub.enter(watched, viewer, self._cursor)


@router.get(
    "/stream",
    summary="Follow an order: server-sent events",
    responses={
        200: {
            "description": "`snapshot`, then `order` and `position` as they come, then `end`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The order has ended and the cursor has seen it: don't come back."},
        **problems(404, 429),
    },
    response_class=Response,
    openapi_extra=OPTIONAL_TOKEN,
)
async def follow_order(
    request: Request,
    order_id: OrderIdText,
    token: LinkTokenFound,
    context: Context,
    cursor: Cursor = None,
    last_event_id: LastEventId = None,
) -> Response:
    """The first frame is what GET /track answers. `Last-Event-ID` resumes after that event."""
    admitted, sha256 = await _authorize(request, order_id, token, context)
    return OrderStream(context, admitted, sha256, last_event_id or cursor)


@router.get(
    "/ws",
    summary="Follow an order: a WebSocket",
    responses={
        101: {"description": "The same frames, as JSON texts with `type`, `data` and `id`."},
        403: {"description": "A cookie, and the page of another site."},
        426: {"description": "Not the handshake of a WebSocket."},
        **problems(404, 429),
    },
    response_class=Response,
    openapi_extra=OPTIONAL_TOKEN,
)
async def follow_order_over_websocket(
    request: Request,
    order_id: OrderIdText,
    token: LinkTokenFound,
    context: Context,
    cursor: Cursor = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Nothing needs to be said over it; more than 1 KiB closes with 1009, chatter with 1008."""
    accepting = shake_hands(request)
    check_origin(request, context.public_url)
    admitted, sha256 = await _authorize(request, order_id, token, context)
    return OrderStream(context, admitted, sha256, last_event_id or cursor, accepting)


async def _authorize(
    request: Request, order_id: str, token: str | None, context: AppContext
) -> tuple[UUID, bytes]:
    admitted, holder = await context.links.authorize(order_id, token, client_address(request))
    sha256 = token_sha256(token or "")
    context.live.crowd.check_room(sha256, staff=holder.role == "staff")
    return admitted, sha256
