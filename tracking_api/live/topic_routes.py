"""Kafka topics as resources, for staff: publish to one, follow one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from doorstep.http.openapi import problems
from doorstep.http.request_body import parse_json, read_body
from tracking_api.context import Context, Staff, StaffToken
from tracking_api.live.follower_stream import FollowerStream, StreamRequest

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
    """A published record's place."""

    topic: str
    partition: int
    offset: int


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
    context: Context,
    key: Annotated[str | None, Query(max_length=200)] = None,
) -> Published:
    """The body, any JSON, becomes the record's value unchanged."""
    context.live.topics.check(topic)
    body = await read_body(request)
    parse_json(body)
    partition, offset = await context.live.topics.publish(topic, key, body)
    return Published(topic=topic, partition=partition, offset=offset)


@router.get(
    "/{topic}",
    summary="Follow a topic: server-sent events, or a WebSocket",
    responses={
        200: {
            "description": "A `record` each; `Last-Event-ID` resumes after one.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        101: {"description": "The same as JSON texts, where a WebSocket is requested."},
        **problems(401, 403, 404),
    },
    response_class=Response,
)
async def follow_topic(
    topic: str,
    request: Request,
    _: Staff,
    token: StaffToken,
    context: Context,
    start: Start = "latest",
    last_event_id: LastEventId = None,
) -> Response:
    """All followers in this process share one consumer."""
    context.live.topics.check(topic)
    stream_request = StreamRequest(request, token, context)
    return FollowerStream(
        stream_request, await context.live.topics.open(topic, last_event_id or start)
    )
