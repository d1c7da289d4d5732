"""The pages and their scripts: static files.

Pages of staff redirect to the sign-in without a session.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from data import world_backdrop
from doorstep.credentials import token_sha256
from doorstep.errors import DoorstepError, Unauthenticated
from doorstep.http.assets import Assets
from doorstep.http.guarded_protocol import note_good_token
from doorstep.http.tokens import identify
from tracking_api.context import AppContext, Context, StaffToken
from tracking_api.restaurant.queries import authenticate
from web import DIST

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


ASSETS: Final = Assets(DIST)


@staff_router.get("/")
async def get_home() -> RedirectResponse:
    """Redirect to the fleet's page."""
    return RedirectResponse("/fleet")


@staff_router.get("/sign-in")
async def get_sign_in_page(request: Request) -> Response:
    """Where staff trade a token, also one after # in the address, for a session."""
    return await ASSETS.page("sign-in.html", request)


@staff_router.get("/fleet")
async def get_fleet_page(request: Request, token: StaffToken, context: Context) -> Response:
    """The fleet's map."""
    return await _staff_page("fleet", request, token, context)


@staff_router.get("/admin")
async def get_admin_page(request: Request, token: StaffToken, context: Context) -> Response:
    """Administration: drivers, restaurants, service areas and policies."""
    return await _staff_page("admin", request, token, context)


@staff_router.get("/observe")
async def get_observe_page(request: Request, token: StaffToken, context: Context) -> Response:
    """Dashboards and Kafka, for admins."""
    return await _staff_page("observe", request, token, context)


@staff_router.get("/reports")
async def get_reports_page(request: Request, token: StaffToken, context: Context) -> Response:
    """A day's report."""
    return await _staff_page("reports", request, token, context)


@staff_router.get("/restaurant")
async def get_restaurant_page(request: Request, token: StaffToken, context: Context) -> Response:
    """A restaurant's own orders, for its staff alone."""
    try:
        await authenticate(context.stores.restaurants, token_sha256(token or ""))
        note_good_token()
    except Unauthenticated:
        return _sign_in("restaurant", request)
    except DoorstepError:
        pass  # the database is unavailable: the page says so, and recovers
    return await ASSETS.page("restaurant.html", request)


@series_router.get("/series")
async def get_series_page(request: Request, token: StaffToken, context: Context) -> Response:
    """The chart of series; `GET /series` without `Accept: text/html` is their list."""
    page = await _staff_page("series", request, token, context)
    page.headers["Vary"] = "Accept, Accept-Encoding"
    return page


@customer_router.get("/t/service-worker.js")
async def get_service_worker(request: Request) -> Response:
    """The customer page's service worker, which shows notifications."""
    return await ASSETS.page("track-service-worker.js", request)


@customer_router.get("/t/{order_id}")
async def get_customer_page(request: Request) -> Response:
    """The customer's page, the same file for every order."""
    return await ASSETS.page("track.html", request)


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
        return _sign_in(name, request)
    except DoorstepError:
        pass  # the database is unavailable: the page says so, and recovers
    return await ASSETS.page(f"{name}.html", request)


def _sign_in(name: str, request: Request) -> RedirectResponse:
    query = f"?{request.url.query}" if request.url.query else ""
    address = f"/sign-in?next={quote(f'/{name}{query}', safe='/')}"
    return RedirectResponse(address, 303, {"Cache-Control": "no-store"})
