"""The courier's page: its files, and its session.

driver_api serves the page itself, so that everything it needs has one origin, without a proxy and
behind Caddy alike. All of it lies below /drive, and so does the cookie, which no other route gets.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import JSONResponse

from doorstep.credentials import new_session_token, token_sha256
from doorstep.errors import Unauthenticated
from doorstep.http.assets import Assets
from doorstep.http.guarded_protocol import note_good_token
from doorstep.http.headers import CONTENT_SECURITY_POLICY
from doorstep.http.openapi import json_request, problems
from doorstep.http.origin import check_same_origin
from doorstep.http.request_body import json_body
from doorstep.http.tokens import identify
from driver_api.context import COURIER_COOKIE, DRIVE, Context, CourierToken
from driver_api.schemas import CourierSession, DriverTokenBody
from web import DIST

SESSION_S = 30 * 24 * 3600.0  # a phone is a courier's own; the session ends with its token

ASSETS: Final = Assets(DIST)
PAGE_HEADERS: Final = {
    "Content-Security-Policy": f"{CONTENT_SECURITY_POLICY}; manifest-src 'self'",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(self), screen-wake-lock=(self)",
}

page_router = APIRouter(prefix=DRIVE, include_in_schema=False)
router = APIRouter(prefix=f"{DRIVE}/session", tags=["courier's page"])


@page_router.get("")
async def get_page(request: Request) -> Response:
    """The page. A driver's token may follow # in the address."""
    response = await ASSETS.page("drive.html", request)
    response.headers.update(PAGE_HEADERS)
    return response


@page_router.get("/service-worker.js")
async def get_service_worker(request: Request) -> Response:
    """What keeps the page on the phone. It may control /drive, one level above."""
    response = await ASSETS.page("drive-service-worker.js", request)
    response.headers["Service-Worker-Allowed"] = DRIVE
    return response


@page_router.get("/manifest.webmanifest")
async def get_manifest(request: Request) -> Response:
    """What makes the page installable."""
    response = await ASSETS.page("drive.webmanifest", request)
    response.headers["Content-Type"] = "application/manifest+json"
    return response


@router.post(
    "",
    summary="Sign in: trade a driver's token for a cookie",
    responses=problems(401, 403, 413, 415, 429),
    openapi_extra=json_request(DriverTokenBody, {"driver": {"token": "drv_…"}}),
)
async def sign_in(
    request: Request,
    context: Context,
    body: Annotated[DriverTokenBody, Depends(json_body(DriverTokenBody))],
) -> Response:
    """The cookie is HttpOnly and SameSite=Strict, and Secure with TLS. It ends after 30 days, or
    with the token."""
    check_same_origin(request)
    session = new_session_token()
    opened = await context.store.open_session(
        token_sha256(body.token), token_sha256(session), SESSION_S
    )
    if opened is None:
        context.sign_in_limiter.take(request)
        raise Unauthenticated
    note_good_token()
    answer = CourierSession(driver_id=opened.driver_id, name=opened.name)
    response = JSONResponse(answer.model_dump())
    set_session_cookie(request, response, session, opened.expires_at)
    return response


def set_session_cookie(
    request: Request, response: Response, session: str, expires_at: datetime
) -> None:
    """Hand a session of the courier's page out."""
    # A proxy that is not named in TRUSTED_PROXIES can only make the cookie stricter.
    schemes = (request.url.scheme, request.headers.get("x-forwarded-proto"))
    response.set_cookie(
        COURIER_COOKIE,
        session,
        expires=expires_at,
        path=DRIVE,
        secure="https" in schemes,
        httponly=True,
        samesite="strict",
    )


@router.get("", summary="Who is signed in", responses=problems(401, 403))
async def get_session(token: CourierToken, context: Context) -> CourierSession:
    """The driver of the cookie, or of a bearer token."""
    holder = await identify(context.find_token, token)
    if holder.driver_id is None or holder.role != "driver":
        raise Unauthenticated
    name = await context.store.read_name(token_sha256(token or ""))
    return CourierSession(driver_id=holder.driver_id, name=name)


@router.delete("", status_code=204, summary="Sign out", responses=problems(403))
async def sign_out(token: CourierToken, response: Response, context: Context) -> None:
    """End the session within 5 s, and delete the cookie."""
    if token is not None:
        await context.store.close_session(token_sha256(token))
    response.delete_cookie(COURIER_COOKIE, path=DRIVE, httponly=True, samesite="strict")
