"""The routes of driver_api."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

import prometheus_client
from fastapi import APIRouter, Request

from doorstep.errors import MalformedFix
from doorstep.fix import decode_fix, decode_fixes
from doorstep.http.openapi import DriverId, IdempotencyKey, json_request, problems
from doorstep.http.request_body import read_body
from doorstep.store.records import IncomingRow, Outcome, Token, row_of, rows_of
from doorstep.telemetry import count_ignored
from driver_api.context import AppContext, Context, DriverToken, Writer
from driver_api.recording import answer_many, answer_one, newest_committed
from driver_api.schemas import (
    FIX_EXAMPLE,
    CurrentOrderAnswer,
    DeclinedOffer,
    DriverAnswer,
    DutyAnswer,
    FixBody,
    FixesBody,
    OfferedOrder,
    OrderAnswer,
    RecordedFix,
    RecordedFixes,
    ReturningOrder,
    StopAnswer,
)
from driver_api.service_token import received_at_of

T = TypeVar("T")

_FIXES = prometheus_client.Counter(
    "doorstep_driver_api_fixes",
    "Fixes received over HTTP, by outcome.",
    ["outcome", "reason"],
)


router = APIRouter(prefix="/drivers/{driver_id}", tags=["drivers"])


@router.patch(
    "/location",
    summary="Send one fix; 200 means committed",
    responses=problems(401, 403, 404, 409, 413, 415, 429),
    openapi_extra=json_request(FixBody, {"fix": FIX_EXAMPLE}),
)
async def patch_location(
    request: Request, driver_id: DriverId, writer: Writer, context: Context
) -> RecordedFix:
    """Record one fix. A repeat is answered with outcome `duplicate` and 200."""
    body = await read_body(request)
    received_at = received_at_of(request, writer, context.clock())
    fix = _decode(decode_fix, body)
    rows = [row_of(0, driver_id, fix, received_at)]
    outcomes = await _record(context, writer, driver_id, rows)
    found = outcomes[0] if outcomes else None
    count_ignored(Counter(fix.ignored))
    _FIXES.labels(found.outcome if found else "committed", (found and found.reason) or "").inc()
    answer = answer_one(driver_id, fix, received_at, outcomes)
    if found is None:
        context.positions.publish(driver_id, fix, round(received_at.timestamp() * 1000))
    return answer


@router.post(
    "/locations",
    summary="Send up to 256 fixes; each has its own outcome",
    responses=problems(401, 403, 404, 413, 415, 429),
    openapi_extra=json_request(FixesBody, {"fixes": {"fixes": [FIX_EXAMPLE]}}),
)
async def post_locations(
    request: Request, driver_id: DriverId, writer: Writer, context: Context
) -> RecordedFixes:
    """Record a batch. A bad fix is listed as rejected; the others are recorded."""
    body = await read_body(request)
    received_at = received_at_of(request, writer, context.clock())
    decoded = _decode(decode_fixes, body)
    rows = rows_of(driver_id, decoded, received_at)
    outcomes = await _record(context, writer, driver_id, rows) if rows else []
    answer = answer_many(driver_id, decoded, received_at, outcomes)
    count_ignored(Counter(name for one in answer.outcomes for name in one.ignored))
    for one in answer.outcomes:
        _FIXES.labels(one.outcome, one.reason or "").inc()
    newest = newest_committed(decoded, outcomes)
    if newest is not None:
        context.positions.publish(driver_id, newest, round(received_at.timestamp() * 1000))
    return answer


@router.get(
    "", summary="Own duty, state, current order and offers", responses=problems(401, 403, 404)
)
async def get_driver(token: DriverToken, context: Context) -> DriverAnswer:
    """The driver's state; the orders with restaurant, destination and customer; open offers."""
    driver, order, offers, ends, orders = await context.store.read_driver(token)
    pins = ends["pin_order_ids"]
    has_pin = order is not None and order["order_id"] in pins
    return DriverAnswer(
        driver_id=driver.driver_id,
        duty=driver.duty,
        state=driver.state,
        order=CurrentOrderAnswer.model_validate({**order, "has_pin": has_pin}) if order else None,
        offers=[OfferedOrder.model_validate(one) for one in offers],
        orders=[
            StopAnswer.model_validate({**one, "has_pin": one["order_id"] in pins}) for one in orders
        ],
        returns=[ReturningOrder.model_validate(one) for one in ends["returns"]],
    )


def _add_duty_route(path: str, command: str, summary: str) -> None:
    @router.post(
        path,
        summary=summary,
        operation_id=command,
        responses=problems(401, 403, 404, 409),
    )
    async def change_duty(
        token: DriverToken,
        context: Context,
        idempotency_key: IdempotencyKey = None,
    ) -> DutyAnswer:
        driver = await context.store.change_duty(token, command, idempotency_key)
        return DutyAnswer(driver_id=driver.driver_id, duty=driver.duty, state=driver.state)


def _add_order_route(path: str, command: str, summary: str) -> None:
    @router.post(
        f"/orders/{{order_id}}/{path}",
        summary=summary,
        operation_id=command,
        responses=problems(401, 403, 404, 409),
    )
    async def command_order(
        order_id: UUID,
        token: DriverToken,
        context: Context,
        idempotency_key: IdempotencyKey = None,
    ) -> OrderAnswer:
        order = await context.store.command_order(token, order_id, command, idempotency_key)
        return OrderAnswer(**order._asdict())


_add_duty_route("/on-duty", "on_duty", "Start work, or end a break")
_add_duty_route("/on-break", "on_break", "Begin a break")
_add_duty_route("/off-duty", "off_duty", "End work")
_add_order_route("decline", "decline", "Give the order back before picking it up")
_add_order_route("picked-up", "pick_up", "The order is on board")


@router.post(
    "/offers/{order_id}/accept",
    summary="Accept an offer, which assigns the order",
    operation_id="accept",
    responses=problems(401, 403, 404, 409),
)
async def accept_offer(
    order_id: UUID, token: DriverToken, context: Context, idempotency_key: IdempotencyKey = None
) -> OrderAnswer:
    """For an available driver, until the offer's `expires_at`; then 409 `offer-closed`."""
    order = await context.store.accept_offer(token, order_id, idempotency_key)
    return OrderAnswer(**order._asdict())


@router.post(
    "/offers/{order_id}/decline",
    summary="Decline an offer",
    operation_id="decline_offer",
    responses=problems(401, 403, 404, 409),
)
async def decline_offer(
    order_id: UUID, token: DriverToken, context: Context, idempotency_key: IdempotencyKey = None
) -> DeclinedOffer:
    """The order may then be offered to the next driver."""
    offer = await context.store.decline_offer(token, order_id, idempotency_key)
    return DeclinedOffer.model_validate(offer, from_attributes=True)


async def _record(
    context: AppContext, writer: Token, driver_id: str, rows: Sequence[IncomingRow]
) -> list[Outcome]:
    """Record fixes, a driver's own within the quota. Raises TooManyRequests."""
    if writer.role != "driver":
        return await context.store.record_fixes(rows, has_quota=False)
    with context.refusals.remembered(driver_id):
        return await context.store.record_fixes(rows, has_quota=True)


def _decode(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except MalformedFix as exc:
        _FIXES.labels("rejected", exc.reason).inc()
        raise
