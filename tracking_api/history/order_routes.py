"""The track of one order, for its customer and staff."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from doorstep.errors import BadLink
from doorstep.http.instants import QueryInstant
from doorstep.http.openapi import problems
from doorstep.http.sign_in_limit import client_address
from tracking_api.context import Context, LinkTokenFound
from tracking_api.history.features import MAX_POINTS, feature_collection
from tracking_api.history.pacing import off_the_loop
from tracking_api.track.presenters import encode_json
from tracking_api.track.routes import OPTIONAL_TOKEN, OrderIdText
from tracking_api.track.visibility import Position

router = APIRouter(prefix="/track/{order_id}", tags=["tracking"])


@router.get(
    "/history",
    summary="The way so far, as GeoJSON",
    responses={
        200: {
            "description": "A FeatureCollection: one LineString without the jumps, then a Point "
            "per fix; fixes that cannot be reached at 70 m/s have `jump`.",
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
    context: Context,
    from_at: Annotated[QueryInstant | None, Query(alias="from")] = None,
    to_at: Annotated[QueryInstant | None, Query(alias="to")] = None,
) -> Response:
    """The current assignment's track: for its customer until it ends, for staff always.

    `from` is inclusive, `to` is exclusive.
    """
    link, holder = await context.links.authorize(order_id, token, client_address(request))
    if holder is not None:
        context.limit_staff_history(holder)
    else:
        context.history_limiter.take(str(link.order_id))
    context.note_read(request, holder)
    trail: list[Position] | None
    if link.is_staff:
        trail = await context.stores.history.read_order_history(
            link.order_id, from_at, to_at, limit=MAX_POINTS + 1
        )
    else:
        trail = await context.stores.customers.read_link_history(
            link, from_at, to_at, limit=MAX_POINTS + 1
        )
    if trail is None:
        raise BadLink
    body = await off_the_loop(len(trail), _encode, trail)
    return Response(body, media_type="application/geo+json")


def _encode(trail: list[Position]) -> bytes:
    collection = feature_collection(trail[:MAX_POINTS], truncated=len(trail) > MAX_POINTS)
    return encode_json(collection)
