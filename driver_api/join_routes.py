"""Joining: a driver opens an invitation's link on a phone, and the page sets the phone up.

The token follows # in the link, so that no log has it. It is good once: the earlier phone's
credential and the earlier sessions of the courier's page end with it.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import JSONResponse

from doorstep.credentials import PhoneSecret, new_follow_token, new_session_token
from doorstep.errors import BadInvitation
from doorstep.http.guarded_protocol import note_good_token
from doorstep.http.openapi import json_request, problems
from doorstep.http.origin import check_same_origin
from doorstep.http.request_body import json_body
from doorstep.http.tokens import BearerToken
from doorstep.phones.links import Phone, owntracks_link
from doorstep.phones.qr_code import qr_svg
from driver_api.context import Context
from driver_api.drive_routes import ASSETS, SESSION_S, set_session_cookie
from driver_api.schemas import (
    InvitationBody,
    JoinAnswer,
    OwnTracksSetup,
    PhoneUse,
    PositionSeen,
    TraccarSetup,
)

router = APIRouter(prefix="/join", tags=["joining"])


@router.get("", include_in_schema=False)
async def get_page(request: Request) -> Response:
    """The page; an invitation's token follows # in the address."""
    return await ASSETS.page("join.html", request)


@router.post(
    "",
    summary="Use an invitation: set a phone up",
    responses=problems(403, 404, 413, 415, 429),
    response_model=JoinAnswer,
    openapi_extra=json_request(
        InvitationBody, {"OwnTracks": {"token": "inv_…", "app": "owntracks"}}
    ),
)
async def use_invitation(
    request: Request,
    context: Context,
    body: Annotated[InvitationBody, Depends(json_body(InvitationBody))],
) -> Response:
    """Ends the earlier phone, and signs this browser in to the courier's page."""
    check_same_origin(request)
    secret = None if body.app == PhoneUse.BROWSER else PhoneSecret.draw()
    session, follow = new_session_token(), new_follow_token()
    joined = await context.store.use_invitation(
        body.token, follow=follow, session=session, session_s=SESSION_S, secret=secret
    )
    if joined is None:
        context.sign_in_limiter.take(request)
        raise BadInvitation
    note_good_token()
    doors = context.phone_doors
    phone = secret and Phone.at(joined.driver_id, secret.token, doors.http_url, doors.brokers)
    answer = JoinAnswer(
        driver_id=joined.driver_id,
        name=joined.name,
        follow_token=follow,
        owntracks=_owntracks(phone) if phone and body.app == PhoneUse.OWNTRACKS else None,
        traccar=_traccar(phone) if phone and body.app == PhoneUse.TRACCAR else None,
    )
    response = JSONResponse(answer.model_dump())
    set_session_cookie(request, response, session, joined.session_expires_at)
    return response


@router.get(
    "/position",
    summary="Whether a position has come since an invitation was used",
    responses=problems(404, 429),
)
async def get_position_seen(request: Request, token: BearerToken, context: Context) -> PositionSeen:
    """With the follow-up token, for a day. It tells nothing else."""
    seen = await context.store.has_position(token or "")
    if seen is None:
        context.sign_in_limiter.take(request)
        raise BadInvitation
    return PositionSeen(has_position=seen)


def _owntracks(phone: Phone) -> OwnTracksSetup:
    return OwnTracksSetup(
        http_link=owntracks_link(phone.owntracks_http()),
        mqtt_link=owntracks_link(phone.owntracks_mqtt()),
    )


def _traccar(phone: Phone) -> TraccarSetup:
    link = phone.traccar_link()
    return TraccarSetup(
        link=link, qr_svg=qr_svg(link), url=phone.traccar_url, device_id=phone.token
    )
