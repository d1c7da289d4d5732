"""The routes of driver_api. Thin: read, ask the store, answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, TypeVar, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from prometheus_client import Counter

from doorstep.errors import Forbidden, MalformedFix
from doorstep.fix import decode_fix, decode_fixes
from doorstep.http.openapi import DriverId, IdempotencyKey, json_request, problems
from doorstep.http.rate_limit import RateLimiter
from doorstep.http.request_body import read_body
from doorstep.http.tokens import BearerToken, FindToken, identify
from doorstep.store.records import Token
from driver_api.database import Store
from driver_api.positions import Positions
from driver_api.recording import answer_many, answer_one, newest_committed, row_of, rows_of
from driver_api.schemas import (
    FIX_EXAMPLE,
    DriverAnswer,
    DutyAnswer,
    FixBody,
    FixesBody,
    OrderAnswer,
    RecordedFix,
    RecordedFixes,
)
from driver_api.service_token import SERVICE, received_at_of

T = TypeVar("T")

FIXES_PER_S = 5  # of one driver, for long
BURST_FIXES = 1000  # what a phone resends after an hour without a network: 3,600 s / 4 s = 900

_FIXES = Counter(
    "doorstep_driver_api_fixes",
    "Fixes that came over HTTP, and what became of them.",
    ["outcome", "reason"],
)


@dataclass(frozen=True, slots=True)
class AppContext:
    """What the routes work with."""

    store: Store
    positions: Positions
    find_token: FindToken
    buckets: RateLimiter
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


async def _parts(
    request: Request,
) -> AppContext:  # async: FastAPI sends plain functions to a thread
    return cast("AppContext", request.app.state.parts)


Context = Annotated[AppContext, Depends(_parts)]


async def _writer(driver_id: DriverId, token: BearerToken, parts: Context) -> Token:
    """The driver, staff, or driver_events' PATCH sink."""
    holder = await identify(parts.find_token, token)
    if holder.role in ("staff", SERVICE) or (
        holder.role == "driver" and holder.driver_id == driver_id
    ):
        return holder
    raise Forbidden


async def _driver(driver_id: DriverId, token: BearerToken, parts: Context) -> Token:
    """The driver and nobody else."""
    holder = await identify(parts.find_token, token)
    if holder.role == "driver" and holder.driver_id == driver_id:
        return holder
    raise Forbidden


Writer = Annotated[Token, Depends(_writer)]
TheDriver = Annotated[Token, Depends(_driver)]

router = APIRouter(prefix="/drivers/{driver_id}", tags=["drivers"])


@router.patch(
    "/location",
    summary="Send one fix; 200 means committed",
    responses=problems(401, 403, 404, 409, 413, 415, 429),
    openapi_extra=json_request(FixBody, {"fix": FIX_EXAMPLE}),
)
async def patch_location(
    request: Request, driver_id: DriverId, writer: Writer, parts: Context
) -> RecordedFix:
    """Record one fix. A repeated one is answered as `duplicate`, with 200 all the same."""
    body = await read_body(request)
    received_at = received_at_of(request, writer, parts.clock())
    _count_against(parts, writer, driver_id, 1)
    fix = _noted(decode_fix, body)
    outcomes = await parts.store.record_fixes([row_of(0, driver_id, fix, received_at)])
    found = outcomes[0] if outcomes else None
    _FIXES.labels(found.outcome if found else "committed", (found and found.reason) or "").inc()
    answer = answer_one(driver_id, fix, received_at, outcomes)
    if found is None:
        parts.positions.publish(driver_id, fix, round(received_at.timestamp() * 1000))
    return answer


@router.post(
    "/locations",
    summary="Send up to 256 fixes, each judged by itself",
    responses=problems(401, 403, 404, 413, 415, 429),
    openapi_extra=json_request(FixesBody, {"fixes": {"fixes": [FIX_EXAMPLE]}}),
)
async def post_locations(
    request: Request, driver_id: DriverId, writer: Writer, parts: Context
) -> RecordedFixes:
    """Record a batch. A bad fix is listed as rejected, and the good ones beside it are kept."""
    body = await read_body(request)
    received_at = received_at_of(request, writer, parts.clock())
    decoded = _noted(decode_fixes, body)
    _count_against(parts, writer, driver_id, len(decoded))
    rows = rows_of(driver_id, decoded, received_at)
    outcomes = await parts.store.record_fixes(rows) if rows else []
    answer = answer_many(driver_id, decoded, received_at, outcomes)
    for one in answer.outcomes:
        _FIXES.labels(one.outcome, one.reason or "").inc()
    newest = newest_committed(decoded, outcomes)
    if newest is not None:
        parts.positions.publish(driver_id, newest, round(received_at.timestamp() * 1000))
    return answer


@router.get("", summary="Own duty, state and current order", responses=problems(401, 403, 404))
async def get_driver(driver_id: DriverId, _: TheDriver, parts: Context) -> DriverAnswer:
    """Tell a phone where it stands and where to go."""
    driver, order = await parts.store.read_driver(driver_id)
    return DriverAnswer(
        driver_id=driver.driver_id, duty=driver.duty, state=driver.state, order=order
    )


def _add_duty_route(path: str, command: str, summary: str) -> None:
    @router.post(
        path,
        summary=summary,
        operation_id=command,
        responses=problems(401, 403, 404, 409),
    )
    async def change_duty(
        driver_id: DriverId,
        _: TheDriver,
        parts: Context,
        idempotency_key: IdempotencyKey = None,
    ) -> DutyAnswer:
        driver = await parts.store.apply_driver_command(driver_id, command, idempotency_key)
        return DutyAnswer(driver_id=driver.driver_id, duty=driver.duty, state=driver.state)


def _add_order_route(path: str, command: str, summary: str) -> None:
    @router.post(
        f"/orders/{{order_id}}/{path}",
        summary=summary,
        operation_id=command,
        responses=problems(401, 403, 404, 409),
    )
    async def command_order(
        driver_id: DriverId,
        order_id: UUID,
        _: TheDriver,
        parts: Context,
        idempotency_key: IdempotencyKey = None,
    ) -> OrderAnswer:
        order = await parts.store.apply_order_command(order_id, command, driver_id, idempotency_key)
        return OrderAnswer.of(order)


_add_duty_route("/on-duty", "on_duty", "Start work, or end a break")
_add_duty_route("/on-break", "on_break", "Begin a break")
_add_duty_route("/off-duty", "off_duty", "End work")
_add_order_route("decline", "decline", "Give the order back before picking it up")
_add_order_route("picked-up", "pick_up", "The order is on board")
_add_order_route("delivered", "deliver", "The customer has the order")
_add_order_route("failed", "fail", "The order can't be delivered")


def _count_against(parts: AppContext, writer: Token, driver_id: str, fixes: int) -> None:
    """Raise TooManyRequests for a driver's phone that sends too much. Staff is not limited."""
    if writer.role == "driver":
        parts.buckets.take(driver_id, fixes)


def _noted(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except MalformedFix as exc:
        _FIXES.labels("rejected", exc.reason).inc()
        raise
