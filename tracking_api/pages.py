"""The pages and their scripts: static files.

Pages of staff redirect to the sign-in without a session.
"""

from __future__ import annotations

import re
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Match
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from data import world_backdrop
from doorstep.errors import DoorstepError, Unauthenticated
from doorstep.http.tokens import identify
from tracking_api.context import AppContext, Context, StaffToken
from web import DIST

ENCODINGS: Final = {"br": ".br", "gzip": ".gz"}  # the better one first
HASHED: Final = re.compile(r"-[0-9A-Z]{8}\.(?:js|css|svg)$")
FOR_EVER: Final = "public, max-age=31536000, immutable"
NOT_BUILT = "The pages are not built: `npm ci && npm run build` in web builds them."

router = APIRouter(include_in_schema=False)
customer_router = APIRouter(include_in_schema=False)
staff_router = APIRouter(include_in_schema=False)


class HtmlRoute(APIRoute):
    """A page at an address of the API, for requests that accept HTML."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and "text/html" not in Headers(scope=scope).get("accept", ""):
            return Match.NONE, {}
        return super().matches(scope)


series_router = APIRouter(include_in_schema=False, route_class=HtmlRoute)


class Assets(StaticFiles):
    """The built pages, scripts and styles, compressed when they were built.

    A name with the hash of the content is cached for ever; other files are revalidated each time.
    """

    def __init__(self, directory: Path = DIST) -> None:
        super().__init__(directory=directory, check_dir=False)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer with a file, as the compressed copy that the client accepts, if there is one."""
        accepted = _accepted_encodings(Headers(scope=scope).get("accept-encoding", ""))
        for encoding, suffix in ENCODINGS.items():
            if encoding not in accepted:
                continue
            with suppress(HTTPException):  # no such copy
                response = await super().get_response(path + suffix, scope)
                response.headers["Content-Encoding"] = encoding
                break
        else:
            response = await super().get_response(path, scope)
        response.headers["Vary"] = "Accept-Encoding"
        response.headers["Cache-Control"] = FOR_EVER if HASHED.search(path) else "no-cache"
        return response


def _accepted_encodings(header: str) -> set[str]:
    """Read Accept-Encoding: the names that it does not exclude with `q=0`."""
    accepted = set()
    for one in header.lower().split(","):
        name, _, quality = one.replace(" ", "").partition(";q=")
        if quality.strip("0.") or not quality:
            accepted.add(name)
    return accepted


ASSETS: Final = Assets()


@staff_router.get("/")
async def get_home() -> RedirectResponse:
    """Redirect to the fleet's page."""
    return RedirectResponse("/fleet")


@staff_router.get("/sign-in")
async def get_sign_in_page(request: Request) -> Response:
    """Where staff trade a token, also one after # in the address, for a session."""
    return await _page("sign-in.html", request)


@staff_router.get("/fleet")
async def get_fleet_page(request: Request, token: StaffToken, context: Context) -> Response:
    """The fleet's map."""
    return await _staff_page("fleet", request, token, context)


@staff_router.get("/observe")
async def get_observe_page(request: Request, token: StaffToken, context: Context) -> Response:
    """Dashboards and Kafka, for admins."""
    return await _staff_page("observe", request, token, context)


@series_router.get("/series")
async def get_series_page(request: Request, token: StaffToken, context: Context) -> Response:
    """The chart of series; `GET /series` without `Accept: text/html` is their list."""
    page = await _staff_page("series", request, token, context)
    page.headers["Vary"] = "Accept, Accept-Encoding"
    return page


@customer_router.get("/t/{order_id}")
async def get_customer_page(request: Request) -> Response:
    """The customer's page, the same file for every order."""
    return await _page("track.html", request)


@router.get("/tiles/outline.geojson")
async def get_outline() -> FileResponse:
    """France and its neighbours in outline (Natural Earth, public domain)."""
    headers = {"Cache-Control": "public, max-age=86400"}
    return FileResponse(world_backdrop(), media_type="application/geo+json", headers=headers)


async def _staff_page(
    name: str, request: Request, token: str | None, context: AppContext
) -> Response:
    """Return a page, or redirect to the sign-in; a browser keeps what follows # in the address."""
    try:
        if not (await identify(context.find_token, token)).is_staff():
            raise Unauthenticated
    except Unauthenticated:
        query = f"?{request.url.query}" if request.url.query else ""
        address = f"/sign-in?next={quote(f'/{name}{query}', safe='/')}"
        return RedirectResponse(address, 303, {"Cache-Control": "no-store"})
    except DoorstepError:
        pass  # the database is unavailable: the page says so, and recovers
    return await _page(f"{name}.html", request)


async def _page(name: str, request: Request) -> Response:
    try:
        return await ASSETS.get_response(name, request.scope)
    except HTTPException as exc:
        raise HTTPException(HTTPStatus.NOT_FOUND, NOT_BUILT) from exc
