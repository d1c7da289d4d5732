"""The photo of a delivery, for the order's customer and staff."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from doorstep.errors import BadLink
from doorstep.http.openapi import problems
from doorstep.http.sign_in_limit import client_address
from tracking_api.context import Context, LinkTokenFound
from tracking_api.orders.end_routes import PHOTO_ANSWER, photo_response
from tracking_api.track.routes import OPTIONAL_TOKEN, OrderIdText

router = APIRouter(prefix="/track/{order_id}", tags=["tracking"])


@router.get(
    "/photo",
    summary="The courier's photo of the delivery",
    response_class=Response,
    responses={200: PHOTO_ANSWER, **problems(404, 429)},
    openapi_extra=OPTIONAL_TOKEN,
)
async def get_photo(
    request: Request, order_id: OrderIdText, token: LinkTokenFound, context: Context
) -> Response:
    """As long as the link is good, and for the days of the retention `photos`."""
    started_s = asyncio.get_running_loop().time()
    address = client_address(request)
    link, staff = await context.links.authorize(order_id, token, address, started_s)
    if staff is not None:
        context.note_read(request, staff)
        return photo_response(await context.stores.orders.read_photo(link.order_id))
    try:
        photo = await context.stores.customers.read_photo_by_link(link)
    except BadLink:
        return await context.links.refuse(started_s, address)
    return photo_response(photo)
