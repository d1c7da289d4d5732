"""A city's restaurants, and points in its buildings."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.cities import Bounds
from doorstep.geo import M_PER_DEG, m_per_lon_deg
from ops.cities.extract import Extract, Shape
from ops.cities.tags import Tags, is_building

AMENITIES = frozenset(
    {"restaurant", "cafe", "fast_food", "bar", "pub", "food_court", "ice_cream"}
)  # fmt: skip
SHOPS = frozenset({"bakery", "convenience", "deli", "greengrocer", "supermarket"})
FIRST_ID = 1_000_000_000  # ids from here on come from files
ID_COUNT = 1_000_000_000
MIN_FOOTPRINT_M2 = 25.0


@dataclass(frozen=True, slots=True)
class FoodPlace:
    """A restaurant, café, bar or food shop. Its id depends on the OSM object alone."""

    poi_id: int
    lon_deg: float
    lat_deg: float
    kind: str
    name: str
    cuisine: str


def food_places(extract: Extract, bounds: Bounds) -> list[FoodPlace]:
    """Find the food places within bounds. Ids stay the same in later extracts."""
    shapes = [one for one in extract.points + extract.areas if _kind(one.tags)]
    used: set[int] = set()
    places = []
    for shape in sorted(shapes, key=lambda one: one.ref):
        lon_deg, lat_deg = _place(shape)
        if not bounds.contains(lon_deg, lat_deg):
            continue
        poi_id = _free_id(shape.ref, used)
        kind, name = _kind(shape.tags), shape.tags.get("name", "")
        cuisine = shape.tags.get("cuisine", "")
        places.append(FoodPlace(poi_id, lon_deg, lat_deg, kind, name, cuisine))
    return places


def _kind(tags: Tags) -> str:
    if tags.get("amenity") in AMENITIES:
        return tags["amenity"]
    return f"shop:{tags['shop']}" if tags.get("shop") in SHOPS else ""


def _free_id(ref: str, used: set[int]) -> int:
    number = zlib.crc32(ref.encode()) % ID_COUNT
    while number in used:
        number = (number + 1) % ID_COUNT
    used.add(number)
    return FIRST_ID + number


def _place(shape: Shape) -> tuple[float, float]:
    point = shape.geometry.representative_point()
    return point.x, point.y


def write_restaurants(places: Sequence[FoodPlace], path: Path) -> None:
    """Write the food places, a CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("poi_id", "lon", "lat", "kind", "name", "cuisine"))
        for one in places:
            place = f"{one.lon_deg:.7f}", f"{one.lat_deg:.7f}"
            rows.writerow((one.poi_id, *place, one.kind, one.name, one.cuisine))


def building_points(extract: Extract, bounds: Bounds) -> Iterator[tuple[float, float, int]]:
    """Yield a point in each building of 25 m² or more: longitude, latitude, m²."""
    for shape in extract.areas:
        if not is_building(shape.tags):
            continue
        lon_deg, lat_deg = _place(shape)
        footprint_m2 = shape.geometry.area * M_PER_DEG * m_per_lon_deg(lat_deg)
        if footprint_m2 >= MIN_FOOTPRINT_M2 and bounds.contains(lon_deg, lat_deg):
            yield lon_deg, lat_deg, round(footprint_m2)


def write_buildings(points: Sequence[tuple[float, float, int]], path: Path) -> None:
    """Write the points in buildings, a gzipped CSV."""
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("lon", "lat", "footprint_m2"))
        rows.writerows((f"{lon:.7f}", f"{lat:.7f}", m2) for lon, lat, m2 in points)
