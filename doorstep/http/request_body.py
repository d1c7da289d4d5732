"""Request bodies: bounded, of one type, strict JSON, then a pydantic model.

Python's JSON reader takes NaN, doubled keys and lone surrogates; a body that holds one is refused
here, before any field is looked at.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from doorstep.errors import DoorstepError
from doorstep.fix.nesting import MAX_NESTING, is_nested_too_deep
from doorstep.http.problems import UnusableRequest, complaints, problem_response

MAX_BODY_BYTES = 64 * 1024  # 64 KiB = 256 fixes of 256 bytes
MAX_HEAD_BYTES = 16 * 1024  # as most servers; ours need less than 1 KiB
MAX_NUMBER_DIGITS = 40  # 2^63 has 19; far below CPython's own limit of 4300
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


class HeadTooLarge(DoorstepError):
    """The address and the headers have more than 16 KiB."""

    status = 431
    problem = "head-too-large"


class RequestLimits:
    """ASGI middleware: refuse what says it is too large, cut off a body that turns out so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        head_bytes += sum(len(name) + len(value) for name, value in scope["headers"])
        if head_bytes > MAX_HEAD_BYTES:
            await problem_response(HeadTooLarge())(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared[:20]) > MAX_BODY_BYTES:
            await problem_response(BodyTooLarge())(scope, receive, send)
            return
        received = 0

        async def receive_some() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise BodyTooLarge
            return message

        await self._app(scope, receive_some, send)


async def read_body(request: Request) -> bytes:
    """Read a JSON body's bytes. Raises UnsupportedBody, BodyTooLarge or BodyTooSlow.

    An empty body needs no content type.
    """
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            body = await request.body()
    except TimeoutError as exc:
        raise BodyTooSlow from exc
    if body:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if media_type != "application/json" or encoding != "identity":
            raise UnsupportedBody
    return body


def json_body(
    model: type[Model], *, optional: bool = False
) -> Callable[[Request], Awaitable[Model]]:
    """A dependency that reads the body as `model`; with `optional`, no body is an empty object."""

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
    if not body:
        _refuse("empty", "a JSON body is needed")
    try:
        text = body.decode("utf-8")
        if is_nested_too_deep(text):
            _refuse("too_deep", f"more than {MAX_NESTING} levels")
        value = json.loads(
            text,
            object_pairs_hook=_object_of,
            parse_int=_int_of,
            parse_float=_float_of,
            parse_constant=lambda name: _refuse("not_finite", f"{name} is not JSON"),
        )
    except UnicodeDecodeError:
        _refuse("not_utf8", "the body is not UTF-8")
    except json.JSONDecodeError as exc:
        _refuse("not_json", f"{exc.msg} at {exc.pos}")
    _check_text(value, MAX_DEPTH)
    return value


def _refuse(reason: str, message: str) -> NoReturn:
    raise UnusableRequest([{"loc": "body", "msg": message, "reason": reason}])


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        _refuse("duplicate_key", "a key stands twice in one object")
    return value


def _int_of(digits: str) -> int:
    if len(digits) > MAX_NUMBER_DIGITS:
        _refuse("number_too_long", f"a number of {len(digits)} digits")
    return int(digits)


def _float_of(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        _refuse("not_finite", "a number beyond what a double holds")
    return value


def _check_text(value: Any, depth_left: int) -> None:
    if isinstance(value, str):
        if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value):
            _refuse("bad_text", "U+0000 or a lone surrogate")
    elif isinstance(value, dict | list):
        if depth_left == 0:
            _refuse("too_deep", f"more than {MAX_DEPTH} levels")
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_text(inner, depth_left - 1)
