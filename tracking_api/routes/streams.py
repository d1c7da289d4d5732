"""Kafka topics as resources, for staff: publish to one, follow one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from doorstep.credentials import token_sha256
from doorstep.web.bodies import parse_json, read_body
from doorstep.web.openapi import problems
from doorstep.web.tokens import BearerToken
from tracking_api.live.response import LiveResponse
from tracking_api.live.topics import Follower, Topics
from tracking_api.live.websocket import check_origin, shake_hands
from tracking_api.routes.parts import Have, Parts, Staff

router = APIRouter(prefix="/streams", tags=["live"])

Start = Annotated[
    str,
    Query(
        alias="from",
        max_length=2000,
        description="`latest`, `earliest`, an offset of every partition, or a record's id.",
    ),
]
LastEventId = Annotated[str | None, Header(max_length=2000)]


class Published(BaseModel):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int


class TopicStream(LiveResponse):
    """The records of one topic."""

    def __init__(
        self,
        parts: Parts,
        sha256: bytes,
        follower: Follower,
        accepting: dict[str, str] | None = None,
    ) -> None:
        super().__init__(parts.live.crowd, sha256, accepting)
        self._topics: Topics = parts.live.topics
        self._follower = follower

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        viewer = await self.start(scope, send, lambda _: self._topics.leave(self._follower))
        self._topics.enter(self._follower, viewer)


@router.post(
    "/{topic}",
    status_code=201,
    summary="Publish a record",
    responses=problems(401, 403, 404, 413, 415),
)
async def publish(
    topic: str,
    request: Request,
    _: Staff,
    parts: Have,
    key: Annotated[str | None, Query(max_length=200)] = None,
) -> Published:
    """The body, any JSON, is the record's value, untouched."""
    parts.live.topics.check(topic)
    body = await read_body(request)
    parse_json(body)
    partition, offset = await parts.live.topics.publish(topic, key, body)
    return Published(topic=topic, partition=partition, offset=offset)


@router.get(
    "/{topic}",
    summary="Follow a topic: server-sent events, or a WebSocket",
    responses={
        200: {
            "description": "A `record` each; `Last-Event-ID` goes on after one.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        101: {"description": "The same as JSON texts, where a WebSocket is asked for."},
        **problems(401, 403, 404),
    },
    response_class=Response,
)
async def follow_topic(
    topic: str,
    request: Request,
    _: Staff,
    token: BearerToken,
    parts: Have,
    start: Start = "latest",
    last_event_id: LastEventId = None,
) -> Response:
    """One consumer serves every follower in this process."""
    parts.live.topics.check(topic)
    accepting = None
    if "upgrade" in request.headers:
        accepting = shake_hands(request)
        check_origin(request, parts.public_url)
    sha256 = token_sha256(token or "")
    parts.live.crowd.check_room(sha256, staff=True)
    follower = await parts.live.topics.find(topic, last_event_id or start)
    return TopicStream(parts, sha256, follower, accepting)
