"""Where is my order? For its customer, with the link's token or the page's cookie, and staff."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import AwareDatetime

from doorstep.errors import BadLink
from doorstep.http.openapi import json_request, problems
from doorstep.http.request_body import json_body
from tracking_api.context import Context, LinkTokenFound, address_of
from tracking_api.history.features import MAX_POINTS, feature_collection
from tracking_api.schemas import LinkToken, TrackAnswer
from tracking_api.track.links import COOKIE, COOKIE_MAX_AGE_S
from tracking_api.track.presenters import track_answer

# Whoever comes without a token gets the same 404 as with a bad one.
OPTIONAL_TOKEN: dict[str, Any] = {"security": [{"HTTPBearer": []}, {}]}

router = APIRouter(prefix="/track/{order_id}", tags=["tracking"])

OrderIdText = Annotated[
    str,
    Path(description="Anything that is no order of this token's is one same 404.", max_length=200),
]


@router.get(
    "",
    summary="Where is my order?",
    responses=problems(404, 429),
    openapi_extra=OPTIONAL_TOKEN,
)
async def get_track(
    request: Request, order_id: OrderIdText, token: LinkTokenFound, parts: Context
) -> TrackAnswer:
    """The order's state and events, and the driver's position while one is under way with it."""
    admitted, _ = await parts.links.authorize(order_id, token, address_of(request))
    found = await parts.store.read_track(admitted)
    if found is None:
        raise BadLink
    return track_answer(found, parts.estimate)


@router.get(
    "/history",
    summary="The way so far, as GeoJSON",
    responses={
        200: {
            "description": "A FeatureCollection: one LineString without the jumps, then a Point "
            "per fix, those that nobody can have driven to flagged `jump`.",
            "content": {"application/geo+json": {"schema": {"type": "object"}}},
        },
        **problems(404, 429),
    },
    response_class=Response,
    openapi_extra=OPTIONAL_TOKEN,
)
async def get_history(
    request: Request,
    order_id: OrderIdText,
    token: LinkTokenFound,
    parts: Context,
    from_at: Annotated[AwareDatetime | None, Query(alias="from")] = None,
    to_at: Annotated[AwareDatetime | None, Query(alias="to")] = None,
) -> Response:
    """The current assignment's track, for its customer while it goes on, for staff afterwards too.

    `from` is inclusive, `to` is not.
    """
    admitted, holder = await parts.links.authorize(order_id, token, address_of(request))
    trail = await parts.store.read_history(
        admitted,
        from_at,
        to_at,
        limit=MAX_POINTS + 1,
        after_the_end=holder.role == "staff",
    )
    if trail is None:
        raise BadLink
    collection = feature_collection(trail[:MAX_POINTS], truncated=len(trail) > MAX_POINTS)
    return Response(
        json.dumps(collection, separators=(",", ":")), media_type="application/geo+json"
    )


@router.post(
    "/session",
    status_code=204,
    summary="Trade the link's token for a cookie",
    responses=problems(404, 413, 415, 429),
    openapi_extra=json_request(LinkToken, {"link": {"token": "cst_…"}}),
)
async def open_session(
    request: Request,
    order_id: OrderIdText,
    parts: Context,
    body: Annotated[LinkToken, Depends(json_body(LinkToken))],
) -> Response:
    """Let the customer's page follow the order without keeping the token where scripts can read
    it."""
    admitted, holder = await parts.links.authorize(order_id, body.token, address_of(request))
    if holder.role != "customer":
        raise BadLink
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE,
        body.token,
        max_age=COOKIE_MAX_AGE_S,
        path=f"/track/{admitted}",
        secure=parts.public_url.startswith("https://"),
        httponly=True,
        samesite="strict",
    )
    return response
