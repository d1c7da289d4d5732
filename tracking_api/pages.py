"""The pages, their scripts, and the map's tiles: static files only."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Match
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from data import firenze_tiles, world_backdrop
from web import DIST

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
    """The built scripts and styles. Browsers revalidate them each time."""

    def __init__(self) -> None:
        super().__init__(directory=DIST, check_dir=False)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


@staff_router.get("/")
async def get_home() -> RedirectResponse:
    """Redirect to the fleet's page."""
    return RedirectResponse("/fleet")


@staff_router.get("/fleet")
async def get_fleet_page() -> FileResponse:
    """The fleet's map. The page prompts for the staff token."""
    return _page("fleet.html")


@series_router.get("/series")
async def get_series_page() -> FileResponse:
    """The chart of series; `GET /series` without `Accept: text/html` is their list."""
    page = _page("series.html")
    page.headers["Vary"] = "Accept"
    return page


@customer_router.get("/t/{order_id}")
async def get_customer_page() -> FileResponse:
    """The customer's page, the same file for every order."""
    return _page("track.html")


@router.api_route("/tiles/firenze.pmtiles", methods=["GET", "HEAD"])
async def get_tiles() -> FileResponse:
    """Florence's map; browsers request byte ranges of it."""
    try:
        path = firenze_tiles()
    except FileNotFoundError as exc:
        raise HTTPException(404) from exc
    headers = {"Cache-Control": "public, max-age=86400"}
    return FileResponse(path, media_type="application/vnd.pmtiles", headers=headers)


@router.get("/tiles/outline.geojson")
async def get_outline() -> FileResponse:
    """France and its neighbours in outline (Natural Earth, public domain)."""
    headers = {"Cache-Control": "public, max-age=86400"}
    return FileResponse(world_backdrop(), media_type="application/geo+json", headers=headers)


def _page(name: str) -> FileResponse:
    path = DIST / name
    if not path.is_file():
        raise HTTPException(404, NOT_BUILT)
    return FileResponse(path, media_type="text/html", headers={"Cache-Control": "no-cache"})
