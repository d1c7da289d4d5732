"""Sign-in of staff: a token is traded for a session, which the browser keeps as a cookie.

A session is a row beside the member's token: it ends when the member is revoked or rotated, at
sign-out, and after SESSION_S.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from doorstep.credentials import new_session_token, token_sha256
from doorstep.errors import Unauthenticated
from doorstep.http.guarded_protocol import note_good_token
from doorstep.http.openapi import json_request, problems
from doorstep.http.origin import check_origin
from doorstep.http.request_body import json_body
from doorstep.http.tokens import identify
from tracking_api.context import STAFF_COOKIE, Context, StaffToken
from tracking_api.people.schemas import SessionAnswer, StaffRole, StaffTokenBody
from tracking_api.restaurant.queries import authenticate

SESSION_S = 12 * 3600.0  # a shift

router = APIRouter(prefix="/session", tags=["people"])


@router.post(
    "",
    summary="Sign in: trade a staff token for a cookie",
    responses=problems(401, 403, 413, 415, 429),
    openapi_extra=json_request(StaffTokenBody, {"staff": {"token": "stf_…"}}),
)
async def sign_in(
    request: Request,
    response: Response,
    context: Context,
    body: Annotated[StaffTokenBody, Depends(json_body(StaffTokenBody))],
) -> SessionAnswer:
    """The cookie is HttpOnly and SameSite=Strict, and Secure with TLS. It ends after 12 hours, or
    with the token."""
    check_origin(request, context.public_url)
    session = new_session_token()
    opened = await context.stores.people.open_session(
        token_sha256(body.token), token_sha256(session), SESSION_S
    )
    if opened is None:
        context.sign_in_limiter.take(request)
        raise Unauthenticated
    note_good_token()
    response.set_cookie(
        STAFF_COOKIE,
        session,
        expires=opened.expires_at,
        path="/",
        secure=context.public_url.startswith("https://"),
        httponly=True,
        samesite="strict",
    )
    return SessionAnswer(name=opened.name, role=StaffRole(opened.role))


@router.get("", summary="Who is signed in", responses=problems(401, 403))
async def get_session(token: StaffToken, context: Context) -> SessionAnswer:
    """The holder of the cookie, or of a bearer token."""
    try:
        holder = await identify(context.find_token, token)
    except Unauthenticated:
        session = await authenticate(context.stores.restaurants, token_sha256(token or ""))
        note_good_token()
        return SessionAnswer(name=session.name, role=StaffRole.RESTAURANT)
    if not holder.is_staff():
        raise Unauthenticated
    return SessionAnswer(name=holder.actor_id, role=StaffRole(holder.staff_role or ""))


@router.delete("", status_code=204, summary="Sign out", responses=problems(403))
async def sign_out(token: StaffToken, response: Response, context: Context) -> None:
    """End the session within 5 s, streams included, and delete the cookie."""
    if token is not None:
        await context.stores.people.close_session(token_sha256(token))
    response.delete_cookie(STAFF_COOKIE, path="/", httponly=True, samesite="strict")
