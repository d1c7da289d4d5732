"""What only the customer of an order may do: read its details, change the note, cancel, share,
subscribe to notifications. A link that the customer shares gets the 404 of every bad link."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response

from doorstep.credentials import new_customer_token, retry_customer_token, token_sha256
from doorstep.errors import BadLink
from doorstep.http.openapi import IdempotencyKey, json_request, problems
from doorstep.http.origin import check_origin
from doorstep.http.request_body import json_body
from doorstep.http.sign_in_limit import client_address
from doorstep.http.tokens import BearerToken
from tracking_api.context import READS, AppContext, context_of
from tracking_api.orders.schemas import CustomersOrder, OrderState
from tracking_api.push.notifier import Recipient
from tracking_api.track.links import COOKIE, parse_order_id
from tracking_api.track.page_schemas import (
    DoorNote,
    NewSubscription,
    PageAnswer,
    RetryLink,
    ShareAnswer,
)
from tracking_api.track.routes import OPTIONAL_TOKEN, OrderIdText
from tracking_api.track.visibility import TrackLink

T = TypeVar("T")

router = APIRouter(prefix="/track/{order_id}", tags=["tracking"])
READ_ERRORS = problems(404, 429)
WRITE_ERRORS = problems(403, 404, 409, 413, 415, 429)


class OwnLink:
    """A customer's link, for one request. With a cookie, only our own page may change something."""

    def __init__(self, request: Request, order_id: str, token: str | None) -> None:
        self.context: AppContext = context_of(request)
        self._request = request
        self._started_s = asyncio.get_running_loop().time()
        cookie = request.cookies.get(COOKIE)
        if token is None and cookie is not None and request.method not in READS:
            check_origin(request, self.context.public_url)
        self.token = token or cookie or ""
        self.link = TrackLink(parse_order_id(order_id), token_sha256(self.token))

    async def run(self, doing: Awaitable[T]) -> T:
        """Return the outcome of a call for the link. Raises BadLink when its time has come."""
        try:
            return await doing
        except BadLink:
            address = client_address(self._request)
            return await self.context.links.refuse(self._started_s, address)


async def _own_link(request: Request, order_id: OrderIdText, token: BearerToken) -> OwnLink:
    return OwnLink(request, order_id, token)


Own = Annotated[OwnLink, Depends(_own_link)]


@router.get(
    "/page",
    summary="What only the customer reads of an order",
    responses=READ_ERRORS,
    openapi_extra=OPTIONAL_TOKEN,
)
async def get_page(own: Own, response: Response) -> PageAnswer:
    """The address, the note for the courier, whom to call, and what may be done."""
    response.headers["Cache-Control"] = "no-store"
    found = await own.run(own.context.stores.customer_page.read_page(own.link))
    return PageAnswer.model_validate({**found, "push_key": own.context.push_key})


@router.put(
    "/door-note",
    status_code=204,
    summary="Change the note for the courier, until pick-up",
    responses=WRITE_ERRORS,
    openapi_extra=OPTIONAL_TOKEN | json_request(DoorNote, {"note": {"door_note": "Ring twice"}}),
)
async def put_door_note(
    own: Own, body: Annotated[DoorNote, Depends(json_body(DoorNote))]
) -> Response:
    """Replace the note, or clear it."""
    await own.run(own.context.stores.customer_page.change_note(own.link, body.door_note))
    return Response(status_code=204)


@router.post(
    "/cancel",
    summary="Cancel the order, until pick-up",
    responses=WRITE_ERRORS,
    openapi_extra=OPTIONAL_TOKEN,
)
async def cancel(own: Own, idempotency_key: IdempotencyKey = None) -> CustomersOrder:
    """Cancel as the customer; `POST /orders/{order_id}/cancel` for the customer's page."""
    left = await own.run(own.context.stores.customers.cancel_by_link(own.link, idempotency_key))
    return CustomersOrder(
        order_id=left.order_id, state=OrderState(left.state), order_seq=left.order_seq
    )


@router.post(
    "/share",
    status_code=201,
    summary="Make a link to share; an earlier one ends",
    responses=WRITE_ERRORS,
    openapi_extra=OPTIONAL_TOKEN,
)
async def share(own: Own, response: Response) -> ShareAnswer:
    """The link shows the state, the estimate and the position, and nothing else."""
    token = new_customer_token()
    await own.run(own.context.stores.customer_page.share(own.link, token_sha256(token)))
    response.headers["Cache-Control"] = "no-store"
    return ShareAnswer(share_link=own.context.customer_link(own.link.order_id, token))


@router.delete(
    "/share",
    status_code=204,
    summary="Withdraw the link that is shared",
    responses=WRITE_ERRORS,
    openapi_extra=OPTIONAL_TOKEN,
)
async def unshare(own: Own) -> Response:
    """End the link; streams that it opened end within seconds."""
    await own.run(own.context.stores.customer_page.unshare(own.link))
    return Response(status_code=204)


@router.post(
    "/retry",
    summary="The link of the order that tries this failed one again",
    responses=WRITE_ERRORS,
    openapi_extra=OPTIONAL_TOKEN,
)
async def follow_retry(own: Own, response: Response) -> RetryLink:
    """Each call returns the same link. 404 `no-retry` without a further attempt, and once one of
    its links was revoked."""
    token = retry_customer_token(own.token, own.link.order_id)
    page = own.context.stores.customer_page
    order_id = await own.run(page.follow_retry(own.link, token_sha256(token)))
    response.headers["Cache-Control"] = "no-store"
    return RetryLink(order_id=order_id, customer_link=own.context.customer_link(order_id, token))


@router.post(
    "/push",
    status_code=204,
    summary="Notify this browser when the courier is nearby, and of the delivery",
    responses=WRITE_ERRORS,
    openapi_extra=OPTIONAL_TOKEN
    | json_request(
        NewSubscription,
        {
            "browser": {
                "endpoint": "https://push.example.org/send/…",
                "keys": {"p256dh": "B…", "auth": "…"},
                "language": "it",
            }
        },
    ),
)
async def subscribe(
    own: Own, body: Annotated[NewSubscription, Depends(json_body(NewSubscription))]
) -> Response:
    """Keep the subscription until the order ends, at most five of one link."""
    recipient = Recipient(body.endpoint, body.keys.p256dh, body.keys.auth, body.language)
    await own.run(own.context.stores.customer_page.subscribe(own.link, recipient))
    return Response(status_code=204)


@router.delete(
    "/push",
    status_code=204,
    summary="Notify this browser no longer",
    responses=WRITE_ERRORS,
    openapi_extra=OPTIONAL_TOKEN,
)
async def unsubscribe(
    own: Own,
    endpoint_sha256: Annotated[
        str, Query(pattern="^[0-9a-f]{64}$", description="The SHA-256 of its endpoint.")
    ],
) -> Response:
    """Remove the subscription with this endpoint."""
    digest = bytes.fromhex(endpoint_sha256)
    await own.run(own.context.stores.customer_page.unsubscribe(own.link, digest))
    return Response(status_code=204)
