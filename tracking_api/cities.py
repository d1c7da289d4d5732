"""The cities that are served: service areas in the database, and folders with their maps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from data import OSM_ATTRIBUTION
from data.cities import Bounds, CityFolder, UnknownCity, find_city
from doorstep.errors import Unavailable
from doorstep.geo import wrap_lon_deg
from tracking_api.context import Context
from tracking_api.fleet.driver_queries import ServiceArea

MAP_CACHE = {"Cache-Control": "public, max-age=3600"}

router = APIRouter(tags=["cities"])
tiles_router = APIRouter(include_in_schema=False)


class CityAnswer(BaseModel):
    """A city. `bounds` is west, south, east, north, with west above east across ±180°.

    `centre` is longitude, latitude. `map_url` is null for a service area without a map.
    """

    name: str
    title: str
    bounds: tuple[float, float, float, float]
    centre: tuple[float, float]
    time_zone: str
    attribution: str
    map_url: str | None


class Cities(BaseModel):
    """Every city, by name."""

    cities: list[CityAnswer]


@router.get("/cities", summary="Every city")
async def get_cities(context: Context) -> Cities:
    """Bounds, time zone and map of every city. Public."""
    areas: Sequence[ServiceArea] = ()
    if context.stores.serves != "customers":
        with suppress(Unavailable):  # then the folders are known
            areas = await context.stores.drivers.read_service_areas()
    answers = {area.name: _answer_of_area(area) for area in areas}
    for folder in context.cities.all():
        answers[folder.name] = _answer_of_folder(folder, answers.get(folder.name))
    return Cities(cities=[answers[name] for name in sorted(answers)])


@tiles_router.api_route("/tiles/{city}.pmtiles", methods=["GET", "HEAD"])
async def get_tiles(city: str, context: Context) -> FileResponse:
    """A city's map; browsers request byte ranges of it."""
    try:
        path = find_city(city, context.cities.cities_dir).tiles
    except UnknownCity as exc:
        raise HTTPException(HTTPStatus.NOT_FOUND) from exc
    if not path.exists():
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return FileResponse(path, media_type="application/vnd.pmtiles", headers=MAP_CACHE)


def _answer_of_area(area: ServiceArea) -> CityAnswer:
    bounds = Bounds(area.west, area.south, area.east, area.north)
    middle_deg = bounds.west + bounds.width_deg / 2
    return CityAnswer(
        name=area.name,
        title=area.name,
        bounds=(bounds.west, bounds.south, bounds.east, bounds.north),
        centre=(wrap_lon_deg(middle_deg), (bounds.south + bounds.north) / 2),
        time_zone=area.time_zone,
        attribution=OSM_ATTRIBUTION,
        map_url=None,
    )


def _answer_of_folder(folder: CityFolder, area: CityAnswer | None) -> CityAnswer:
    """Staff may have changed the area since: its bounds and time zone hold."""
    bounds = folder.bounds
    return CityAnswer(
        name=folder.name,
        title=folder.title,
        bounds=area.bounds if area else (bounds.west, bounds.south, bounds.east, bounds.north),
        centre=folder.centre,
        time_zone=area.time_zone if area else folder.time_zone,
        attribution=folder.attribution,
        map_url=f"/tiles/{folder.name}.pmtiles",
    )
