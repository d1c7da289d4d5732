"""The pages: the fleet's map and the customer's, their scripts, and the map's tiles.

All of it is files: nothing of a request ends up in a page.
"""

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


class ForBrowsers(APIRoute):
    """A page at an address that scripts ask for data: only who wants HTML gets it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and "text/html" not in Headers(scope=scope).get("accept", ""):
            return Match.NONE, {}
        return super().matches(scope)


series_router = APIRouter(include_in_schema=False, route_class=ForBrowsers)


class Assets(StaticFiles):
    """The built scripts and styles. They are asked for again each time, and rarely sent again."""

    def __init__(self) -> None:
        super().__init__(directory=DIST, check_dir=False)

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


@router.get("/")
async def get_home() -> RedirectResponse:
    """Staff's way in."""
    return RedirectResponse("/fleet")


@router.get("/fleet")
async def get_fleet_page() -> FileResponse:
    """The fleet's map. It asks for the staff token itself."""
    return _page("fleet.html")


@series_router.get("/series")
async def get_series_page() -> FileResponse:
    """The chart of series; `GET /series` without `Accept: text/html` is the list of them."""
    page = _page("series.html")
    page.headers["Vary"] = "Accept"
    return page


@router.get("/t/{order_id}")
async def get_customer_page() -> FileResponse:
    """The same page for every order: it knows its order from its address."""
    return _page("track.html")


@router.api_route("/tiles/firenze.pmtiles", methods=["GET", "HEAD"])
async def get_tiles() -> FileResponse:
    """Florence's map, in the ranges that a browser asks for."""
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
