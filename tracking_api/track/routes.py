"""Where is my order? For its customer, with the link's token or the page's cookie, and staff."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from doorstep.errors import BadLink
from doorstep.http.direct_routes import DirectRoute
from doorstep.http.openapi import json_request, problems
from doorstep.http.request_body import json_body
from doorstep.http.sign_in_limit import client_address
from doorstep.store.deadline import request_deadline
from tracking_api.context import (
    AppContext,
    Context,
    LinkTokenFound,
    context_of,
    read_link_token,
)
from tracking_api.track.links import COOKIE, COOKIE_MAX_AGE_S
from tracking_api.track.schemas import LinkToken, TrackAnswer

# A request without a token gets the same 404 as one with a bad token.
OPTIONAL_TOKEN: dict[str, Any] = {"security": [{"HTTPBearer": []}, {}]}

router = APIRouter(prefix="/track/{order_id}", tags=["tracking"])
session_router = APIRouter(prefix="/track/{order_id}", tags=["tracking"])

MAX_ORDER_ID = 200
OrderIdText = Annotated[
    str,
    Path(
        description="Anything that is no order of this token's is one same 404.",
        max_length=MAX_ORDER_ID,
    ),
]


@router.get(
    "",
    summary="Where is my order?",
    responses={
        304: {"description": "Nothing has changed since the `ETag` in `If-None-Match`."},
        **problems(404, 429),
    },
    response_model=TrackAnswer,
    openapi_extra=OPTIONAL_TOKEN,
)
async def get_track(
    request: Request, order_id: OrderIdText, token: LinkTokenFound, context: Context
) -> Response:
    """The order's state and events, and the driver's position while one is under way with it.

    Read from the database for each request. `ETag` is of all but `age_s` and `seconds`.
    """
    return await _answer(request, order_id, token, context)


async def _get_track_directly(request: Request) -> Response | None:
    order_id = request.path_params["order_id"]
    if len(order_id) > MAX_ORDER_ID:
        return None
    return await _answer(request, order_id, read_link_token(request), context_of(request))


async def _answer(
    request: Request, order_id: str, token: str | None, context: AppContext
) -> Response:
    async with request_deadline():
        order, staff = await context.links.read_track(order_id, token, client_address(request))
    context.note_read(request, staff)
    answer = context.answers.encode(order)
    headers, known = {"ETag": answer.etag}, request.headers.get("if-none-match", "")
    if answer.etag in known or known.strip() == "*":
        return Response(status_code=304, headers=headers)
    return Response(answer.body, media_type="application/json", headers=headers)


@session_router.post(
    "/session",
    status_code=204,
    summary="Trade the link's token for a cookie",
    responses=problems(404, 413, 415, 429),
    openapi_extra=json_request(LinkToken, {"link": {"token": "cst_…"}}),
)
async def open_session(
    request: Request,
    order_id: OrderIdText,
    context: Context,
    body: Annotated[LinkToken, Depends(json_body(LinkToken))],
) -> Response:
    """Let the customer's page follow the order without keeping the token where scripts can read
    it."""
    return await _open_session(request, order_id, body, context)


_read_link_token = json_body(LinkToken)


async def _open_session_directly(request: Request) -> Response | None:
    order_id = request.path_params["order_id"]
    if len(order_id) > MAX_ORDER_ID:
        return None
    return await _open_session(
        request, order_id, await _read_link_token(request), context_of(request)
    )


DIRECT = [DirectRoute("/track/{order_id}", _get_track_directly)]
SESSION_DIRECT = [DirectRoute("/track/{order_id}/session", _open_session_directly, "POST")]


async def _open_session(
    request: Request, order_id: str, body: LinkToken, context: AppContext
) -> Response:
    async with request_deadline():
        link, _ = await context.links.authorize(order_id, body.token, client_address(request))
    if link.is_staff:
        raise BadLink
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE,
        body.token,
        max_age=COOKIE_MAX_AGE_S,
        path=f"/track/{link.order_id}",
        secure=context.public_url.startswith("https://"),
        httponly=True,
        samesite="strict",
    )
    return response
