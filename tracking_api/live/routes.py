"""Streams of one order, for its customer and staff: server-sent events, or a WebSocket."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from doorstep.credentials import token_sha256
from doorstep.http.direct_routes import DirectRoute
from doorstep.http.openapi import problems
from doorstep.http.origin import check_origin
from doorstep.http.sign_in_limit import client_address
from tracking_api.context import (
    AppContext,
    Context,
    LinkTokenFound,
    context_of,
    read_link_token,
)
from tracking_api.live.admission import MAX_EVENT_ID, OFFERED_S
from tracking_api.live.response import LiveResponse
from tracking_api.live.websocket import accept_handshake
from tracking_api.track.routes import MAX_ORDER_ID, OPTIONAL_TOKEN, OrderIdText
from tracking_api.track.visibility import TrackLink

router = APIRouter(prefix="/track/{order_id}", tags=["live"])

LastEventId = Annotated[str | None, Header(max_length=MAX_EVENT_ID)]
Cursor = Annotated[
    str | None,
    Query(
        alias="last_event_id",
        max_length=MAX_EVENT_ID,
        description="The id of the last frame seen, for clients that cannot send the header.",
    ),
]


class OrderStream(LiveResponse):
    """The frames of one order."""

    def __init__(
        self,
        context: AppContext,
        link: TrackLink,
        sha256: bytes,
        cursor: str | None,
        handshake: dict[str, str] | None = None,
    ) -> None:
        super().__init__(context.live.connections, sha256, handshake)
        self._hub = context.live.hub_for(link)
        self._link, self._cursor = link, cursor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._hub.open_channel(self._link) as channel:
            if not self.is_websocket and channel.has_seen_end(self._cursor):
                await Response(status_code=204)(scope, receive, send)  # ends EventSource
                return
            unsubscribe = partial(self._hub.unsubscribe, channel)
            async with self.started(scope, send, unsubscribe) as viewer:
                viewer.is_polled = not self._link.is_staff
                self._hub.subscribe(channel, viewer, self._cursor)


@router.get(
    "/stream",
    summary="Follow an order: server-sent events",
    responses={
        200: {
            "description": "`snapshot`, then `order` and `position` as they come, then `end`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The order has ended, and the cursor is its last event."},
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
    """The first frame is the answer of GET /track. `Last-Event-ID` resumes after that event."""
    link, sha256 = await _authorize(request, order_id, token, context)
    return OrderStream(context, link, sha256, last_event_id or cursor)


async def _follow_order_directly(request: Request) -> Response | None:
    """Without a query: EventSource resumes with the header."""
    order_id, last_event_id = request.path_params["order_id"], request.headers.get("last-event-id")
    if len(order_id) > MAX_ORDER_ID or len(last_event_id or "") > MAX_EVENT_ID:
        return None
    if request.scope["query_string"]:
        return None
    context = context_of(request)
    link, sha256 = await _authorize(request, order_id, read_link_token(request), context)
    return OrderStream(context, link, sha256, last_event_id)


DIRECT = [DirectRoute("/track/{order_id}/stream", _follow_order_directly)]


@router.get(
    "/ws",
    summary="Follow an order: a WebSocket",
    responses={
        101: {"description": "The same frames, as JSON texts with `type`, `data` and `id`."},
        403: {"description": "A cookie, sent by the page of another site."},
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
    """Clients send nothing. A message over 1 KiB closes with 1009, too many with 1008."""
    handshake = accept_handshake(request)
    check_origin(request, context.public_url)
    link, sha256 = await _authorize(request, order_id, token, context)
    return OrderStream(context, link, sha256, last_event_id or cursor, handshake)


async def _authorize(
    request: Request, order_id: str, token: str | None, context: AppContext
) -> tuple[TrackLink, bytes]:
    offered_s = request.scope.get("state", {}).get(OFFERED_S)
    address = client_address(request)
    link, holder = await context.links.authorize(order_id, token, address, offered_s)
    context.note_read(request, holder)
    sha256 = token_sha256(token or "")
    context.live.connections.check_capacity(sha256, staff=link.is_staff)
    return link, sha256
