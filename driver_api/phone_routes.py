"""The routes of unmodified phone apps: OwnTracks, Traccar Client and Overland.

Each of them keeps a queue, first in first out, and most block at a 4xx, or lose what it was for. So
there are few answers:

    200    committed, quarantined, duplicate, ignored; or refused for good, its dead letter stored
    401    the credential is wrong
    422    an encrypted message, which the driver can change
    503    anything else: to be sent again

A sender that is too fast gets its answer late; when that is not enough, a 503.
"""

from __future__ import annotations

import asyncio
import base64
import time
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from fastapi import APIRouter, Request
from prometheus_client import Counter
from starlette.responses import JSONResponse, Response

from doorstep.credentials import token_sha256
from doorstep.errors import (
    MalformedFix,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnknownDriver,
)
from doorstep.fix import Fix, Refused
from doorstep.http.openapi import problems
from doorstep.http.rate_limit import RateLimiter
from doorstep.http.tokens import BearerToken, identify
from doorstep.phones import (
    PhoneEntry,
    decode_overland,
    decode_owntracks_message,
    decode_traccar,
    mode_command,
)
from doorstep.telemetry import count_ignored
from driver_api.context import AppContext, Context
from driver_api.phone_bodies import read_phone_body
from driver_api.phone_recording import (
    dead_letters_of,
    ignored_fields,
    outcomes_of,
    rows_of_entries,
)
from driver_api.queries import PhoneApp
from driver_api.recording import newest_committed

T = TypeVar("T")

PATIENCE_S = 5.0  # with the 4 s that the database may take below the apps' time-outs, 10 s and more
LETTERS_PER_MINUTE = 20  # as DEAD_LETTERS_PER_MINUTE: a phone whose clock fails sends 15
BURST_LETTERS = 60 * LETTERS_PER_MINUTE

OWNTRACKS, TRACCAR, OVERLAND = "/owntracks", "/osmand", "/overland"
APP_NAMES = {
    OWNTRACKS: "OwnTracks over HTTP",
    TRACCAR: "Traccar Client",
    OVERLAND: "Overland",
}
PHONE_PATHS = tuple(APP_NAMES)

_ENTRIES = Counter(
    "doorstep_driver_api_phone_entries",
    "Messages and positions of phone apps over HTTP, by outcome.",
    ["path", "outcome", "reason"],
)
_TOO_LARGE = Refused(0, None, None, "too_large", "over 1 MiB")

router = APIRouter(tags=["phones"])


class SenderTooFast(Unavailable):
    """More fixes than a driver may send; try again later."""

    problem = "sender-too-fast"
    retry_after_s = 10


@router.post(
    OWNTRACKS,
    summary="A message of OwnTracks; HTTP Basic with the driver's id and the phone's token",
    responses=problems(401, 422),
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {}}}}},
)
async def post_owntracks(request: Request, context: Context) -> Response:
    """Record a position, and ignore other messages.

    The answer is an array: empty, or with a command that sets how the app reports.
    """
    phone = await _basic(request, context)
    body = await read_phone_body(request)
    entry, mode = (_large(b""), None) if body is None else _owntracks_entry(body)
    phone = phone._replace(mode=mode, can_command=True)
    wanted = await _record(request, context, phone, [entry])
    return JSONResponse([] if wanted is None else [mode_command(wanted)])


@router.post(
    TRACCAR,
    summary="A position of Traccar Client: a query, a form or JSON; `id` is the phone's token",
    responses=problems(401),
    openapi_extra={"requestBody": {"content": {"*/*": {"schema": {}}}}},
)
async def post_traccar(request: Request, context: Context) -> Response:
    """Record a position. Heartbeats without a place are ignored."""
    body = await read_phone_body(request)
    token, entries = decode_traccar(request.scope["query_string"], body or b"")
    phone = await _phone(request, context, token)
    if body is None:
        entries = [_large(b"")]
    await _record(request, context, phone, entries)
    return Response()


@router.get(
    TRACCAR,
    summary="A position of Traccar Client in a query; `id` is the phone's token",
    responses=problems(401),
)
async def get_traccar(request: Request, context: Context) -> Response:
    """Like POST."""
    return await post_traccar(request, context)


@router.post(
    OVERLAND,
    summary="Positions of Overland; the phone's token as a bearer token",
    responses=problems(401),
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {}}}}},
)
async def post_overland(request: Request, context: Context, token: BearerToken) -> Response:
    """Record up to several hundred positions, each with its own outcome."""
    phone = await _phone(request, context, token)
    body = await read_phone_body(request)
    try:
        entries = [_large(b"")] if body is None else decode_overland(body)
    except MalformedFix as exc:
        entries = [PhoneEntry(Refused(0, None, None, exc.reason, exc.detail), body or b"")]
    await _record(request, context, phone, entries)
    return JSONResponse({"result": "ok"})


def _large(payload: bytes) -> PhoneEntry:
    return PhoneEntry(_TOO_LARGE, payload)


def _owntracks_entry(body: bytes) -> tuple[PhoneEntry, int | None]:
    """Decode a message and its mode. Raises MalformedFix for an encrypted one only."""
    try:
        found, mode = decode_owntracks_message(body)
        return PhoneEntry(found, body), mode
    except MalformedFix as exc:
        if exc.reason == "encrypted":
            _ENTRIES.labels(OWNTRACKS, "refused", exc.reason).inc()
            raise
        return PhoneEntry(Refused(0, None, None, exc.reason, exc.detail), body), None


async def _phone(request: Request, context: AppContext, token: str | None) -> PhoneApp:
    """Return the phone that has this token. Raises Unauthenticated."""
    holder = await identify(context.find_phone, token)
    return PhoneApp(holder.driver_id or "", _app_of(request), token_sha256(token or ""))


async def _basic(request: Request, context: AppContext) -> PhoneApp:
    """Return the phone of HTTP Basic. Raises Unauthenticated."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (Base64Error, UnicodeDecodeError) as exc:
        raise Unauthenticated from exc
    user, _, token = text.partition(":")
    if scheme.lower() != "basic":
        raise Unauthenticated
    phone = await _phone(request, context, token)
    if phone.driver_id != user:
        raise Unauthenticated
    return phone


async def _record(
    request: Request, context: AppContext, phone: PhoneApp, entries: Sequence[PhoneEntry]
) -> int | None:
    """Commit what is a position and the dead letters of what is refused.

    Returns the mode that OwnTracks is to set, if there is one.
    Raises SenderTooFast and other Unavailable errors: nothing is written.
    """
    received_at = context.clock()
    path, driver_id = request.scope["path"], phone.driver_id
    rows = rows_of_entries(driver_id, entries, received_at)
    refused = sum(isinstance(entry.found, Refused) for entry in entries)
    phone = phone._replace(has_position=any(isinstance(one.found, Fix) for one in entries))

    async def attempt() -> tuple[list[tuple[str, str]], int | None]:
        try:
            with context.refusals.remembered(driver_id):
                found, mode = await context.store.record_phone(
                    rows,
                    lambda found: dead_letters_of(driver_id, path, entries, found, received_at),
                    phone,
                )
        except UnknownDriver as exc:  # the token has just ended
            raise Unauthenticated from exc
        newest = newest_committed([entry.found for entry in entries], found)
        if newest is not None:
            context.positions.publish(driver_id, newest, round(received_at.timestamp() * 1000))
        return list(outcomes_of(entries, found)), mode

    deadline_s = time.monotonic() + PATIENCE_S
    if refused:
        take = partial(_take, context.letter_limiter, driver_id, min(refused, BURST_LETTERS))
        await _patiently(deadline_s, take)
    outcomes, wanted = await _patiently(deadline_s, attempt)
    count_ignored(ignored_fields(entries))
    for outcome, reason in outcomes:
        _ENTRIES.labels(path, outcome, reason).inc()
    return wanted


def _app_of(request: Request) -> str:
    """Name the app and its version, as staff sees it."""
    agent = request.headers.get("user-agent", "")
    agent = "".join(letter for letter in agent if letter.isascii() and letter.isprintable())
    name = APP_NAMES[request.scope["path"]]
    return f"{name} ({agent[:100].strip()})" if agent.strip() else name


async def _take(limiter: RateLimiter, driver_id: str, count: int) -> None:
    """Take from a limit. Raises TooManyRequests."""
    limiter.take(driver_id, count)


async def _patiently(deadline_s: float, attempt: Callable[[], Awaitable[T]]) -> T:
    """Try until the limits allow it. Raises SenderTooFast after the deadline."""
    while True:
        try:
            return await attempt()
        except TooManyRequests as exc:
            left_s = deadline_s - time.monotonic()
            await asyncio.sleep(max(0.0, min(left_s, exc.retry_after_s)))
            if exc.retry_after_s > left_s:
                raise SenderTooFast from exc
