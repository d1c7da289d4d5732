"""Request bodies: bounded, of one type, strict JSON, then a pydantic model.

A body that is not strict JSON is refused before any field is validated.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from doorstep import strict_json
from doorstep.errors import DoorstepError, MalformedJson
from doorstep.http.problems import UnusableRequest, complaints, problem_response

MAX_BODY_BYTES = 64 * 1024  # 64 KiB = 256 fixes of 256 bytes
MAX_HEAD_BYTES = 16 * 1024  # as most servers; ours need less than 1 KiB
MAX_DEPTH = 32  # the deepest body of ours has 3
READ_TIMEOUT_S = 10  # 64 KiB at 6.4 KiB/s, slower than a bad 2G link

Model = TypeVar("Model", bound=BaseModel)


class BodyTooLarge(DoorstepError):
    """The body has more than 64 KiB."""

    status = 413
    problem = "body-too-large"


class UnsupportedBody(DoorstepError):
    """The body must be application/json, not encoded any further."""

    status = 415
    problem = "unsupported-body"


class BodyTooSlow(DoorstepError):
    """The body did not arrive within 10 s."""

    retriable = True
    status = 408
    problem = "body-too-slow"


class BodyCutOff(DoorstepError):
    """The connection ended before the body did."""

    retriable = True
    status = 400
    problem = "body-cut-off"


class HeadTooLarge(DoorstepError):
    """The address and the headers have more than 16 KiB."""

    status = 431
    problem = "head-too-large"


class RequestLimits:
    """ASGI middleware: refuse a declared size over the limit, and abort a body that exceeds it.

    `unlimited_paths`, and those that match the pattern, limit their bodies themselves.
    """

    def __init__(
        self, app: ASGIApp, unlimited_paths: Collection[str] = (), unlimited_pattern: str = "(?!)"
    ) -> None:
        self._app = app
        self._unlimited_paths = frozenset(unlimited_paths)
        self._is_unlimited = re.compile(unlimited_pattern).fullmatch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        head_bytes += sum(len(name) + len(value) for name, value in scope["headers"])
        if head_bytes > MAX_HEAD_BYTES:
            await problem_response(HeadTooLarge())(scope, receive, send)
            return
        if scope["path"] in self._unlimited_paths or self._is_unlimited(scope["path"]):
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared[:20]) > MAX_BODY_BYTES:
            await problem_response(BodyTooLarge())(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise BodyTooLarge
            return message

        await self._app(scope, receive_limited, send)


async def read_body(request: Request) -> bytes:
    """Read a JSON body's bytes. Raises UnsupportedBody or one of the Body… errors.

    An empty body needs no content type.
    """
    async with arriving_within(READ_TIMEOUT_S):
        body = await request.body()
    if body and not is_of_type(request, "application/json"):
        raise UnsupportedBody
    return body


@asynccontextmanager
async def arriving_within(limit_s: float) -> AsyncIterator[None]:
    """Raise BodyTooSlow or BodyCutOff if the block does not get the body."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as exc:
        raise BodyTooSlow from exc
    except ClientDisconnect as exc:  # a phone that lost its network, not a defect
        raise BodyCutOff from exc


def is_of_type(request: Request, wanted: str) -> bool:
    """Whether the body is declared as of this media type, and not encoded any further."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    return media_type == wanted and encoding == "identity"


def json_body(
    model: type[Model], *, optional: bool = False
) -> Callable[[Request], Awaitable[Model]]:
    """Return a dependency that parses the body; with `optional`, no body is an empty object."""

    async def read(request: Request) -> Model:
        body = await read_body(request)
        if not body and optional:
            body = b"{}"
        value = parse_json(body)
        try:
            return model.model_validate_json(json.dumps(value), strict=True)
        except ValidationError as exc:
            raise UnusableRequest(complaints(exc.errors(include_url=False))) from exc

    return read


def parse_json(body: bytes) -> Any:
    """Parse strict JSON. Raises UnusableRequest with the reason, such as `duplicate_key`."""
    try:
        value = strict_json.parse(body)
        strict_json.check(value, MAX_DEPTH)
    except MalformedJson as exc:
        complaint = {"loc": "body", "msg": exc.detail, "reason": exc.reason}
        raise UnusableRequest([complaint]) from exc
    return value
