"""Find a place by its name: a restaurant, an address, a street. For staff."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from data import BUNDLED_CITY
from doorstep.http.openapi import problems
from tracking_api.context import Context, Staff
from tracking_api.orders.schemas import Coordinates

router = APIRouter(tags=["orders"])

_COORDINATES = re.compile(r"\s*(-?\d{1,2}(?:\.\d+)?)\s*[,; ]\s*(-?\d{1,3}(?:\.\d+)?)\s*")


class FoundPlaceAnswer(BaseModel):
    """A place. `kind` says how exact it is: `street` is the middle of a street."""

    kind: Literal["restaurant", "address", "street", "coordinates"]
    name: str
    detail: str | None
    restaurant_id: int | None
    place: Coordinates


class FoundPlaces(BaseModel):
    """What a search for a place found, the best match first, restaurants before streets."""

    city: str
    has_house_numbers: bool
    places: list[FoundPlaceAnswer]


@router.get(
    "/places", summary="Find a restaurant, an address or a street", responses=problems(401, 403)
)
async def find_places(
    _: Staff,
    context: Context,
    q: Annotated[
        str,
        Query(
            min_length=1,
            max_length=100,
            pattern="^[^\\u0000]+$",
            description="Beginnings of words, perhaps with a house number; or latitude, longitude.",
        ),
    ],
    city: Annotated[str, Query(max_length=40)] = BUNDLED_CITY,
    limit: Annotated[int, Query(ge=1, le=50)] = 8,
) -> FoundPlaces:
    """In one city: its restaurants in the database, and its files' streets and house numbers.

    A city without files has restaurants only.
    """
    coordinates = _parse_coordinates(q)
    if coordinates is not None:
        return FoundPlaces(city=city, has_house_numbers=False, places=[coordinates])
    folder = next((one for one in context.cities.all() if one.name == city), None)
    found = [
        FoundPlaceAnswer(
            kind="restaurant",
            name=one.name,
            detail=one.address,
            restaurant_id=one.restaurant_id,
            place=Coordinates(lon_deg=one.lon_deg, lat_deg=one.lat_deg),
        )
        for one in await context.stores.decisions.find_restaurants(q.strip(), city, limit)
    ]
    if folder is not None:
        index = await context.places.index_of(folder)
        found += [
            FoundPlaceAnswer(
                kind=one.precision,
                name=one.name,
                detail=None,
                restaurant_id=None,
                place=Coordinates(lon_deg=one.place[0], lat_deg=one.place[1]),
            )
            for one in index.find(q, limit)
        ]
    has_numbers = folder is not None and folder.addresses.exists()
    return FoundPlaces(city=city, has_house_numbers=has_numbers, places=found)


def _parse_coordinates(text: str) -> FoundPlaceAnswer | None:
    match = _COORDINATES.fullmatch(text)
    if match is None:
        return None
    lat_deg, lon_deg = float(match[1]), float(match[2])
    if not (-90 <= lat_deg <= 90 and -180 <= lon_deg <= 180):
        return None
    return FoundPlaceAnswer(
        kind="coordinates",
        name=f"{lat_deg:g}, {lon_deg:g}",
        detail=None,
        restaurant_id=None,
        place=Coordinates(lon_deg=lon_deg, lat_deg=lat_deg),
    )
