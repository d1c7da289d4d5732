"""Where is my order? For its customer, with the link's token or the page's cookie, and staff."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from doorstep.errors import BadLink
from doorstep.http.openapi import json_request, problems
from doorstep.http.request_body import json_body
from tracking_api.context import Context, LinkTokenFound, client_address
from tracking_api.track.links import COOKIE, COOKIE_MAX_AGE_S
from tracking_api.track.presenters import encode_track
from tracking_api.track.schemas import LinkToken, TrackAnswer

# A request without a token gets the same 404 as one with a bad token.
OPTIONAL_TOKEN: dict[str, Any] = {"security": [{"HTTPBearer": []}, {}]}

router = APIRouter(prefix="/track/{order_id}", tags=["tracking"])
session_router = APIRouter(prefix="/track/{order_id}", tags=["tracking"])

OrderIdText = Annotated[
    str,
    Path(description="Anything that is no order of this token's is one same 404.", max_length=200),
]


@router.get(
    "",
    summary="Where is my order?",
    responses=problems(404, 429),
    response_model=TrackAnswer,
    openapi_extra=OPTIONAL_TOKEN,
)
async def get_track(
    request: Request, order_id: OrderIdText, token: LinkTokenFound, context: Context
) -> Response:
    """The order's state and events, and the driver's position while one is under way with it."""
    order, staff = await context.links.read_track(order_id, token, client_address(request))
    context.note_read(request, staff)
    return Response(encode_track(order, context.estimate), media_type="application/json")


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
