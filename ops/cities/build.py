"""Makes a city's folder from an extract, and puts it in place in one step."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import shapely
import tzfpy

from data import BUNDLED_CITY, OSM_ATTRIBUTION
from data.cities import CITY_FILE, CITY_NAME, Bounds, CityFolder, read_city
from doorstep.geo import lon_difference_deg, wrap_lon_deg
from eta.streets import BannedTurn, read_streets
from ops.cities.addresses import addresses, write_addresses
from ops.cities.errors import CityError
from ops.cities.extract import Extract, Point, Shape, WayLine, bounds_of, read_extract
from ops.cities.map_layers import map_features
from ops.cities.places import building_points, food_places, write_buildings, write_restaurants
from ops.cities.street_graph import StreetGraph, build_graph, write_graph
from ops.cities.tiles import write_tiles
from ops.cities.turns import Turn, find_turns, usable_turns, write_turns
from ops.console import Echo

UTC_ZONE = ZoneInfo("UTC")


def check_name(name: str) -> None:
    """Raise CityError for a name that a city may not have."""
    if not CITY_NAME.fullmatch(name):
        raise CityError(
            f"{name!r} cannot be a city's name: use 1 to 40 of a-z, 0-9, - and _, like new-york"
        )
    if name == BUNDLED_CITY:
        raise CityError(f"{name} is the bundled example and cannot be changed: choose another name")


def build_city(
    name: str, osm_file: Path, bounds: Bounds | None, cities_dir: Path, echo: Echo
) -> CityFolder:
    """Make a city's folder, or replace it. Raises CityError, and leaves the present one then."""
    check_name(name)
    cities_dir.mkdir(parents=True, exist_ok=True)
    part = cities_dir / f".{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        _build(name, osm_file, bounds, part, echo)
        city = replace(read_city(part), path=cities_dir / name)
        _put_in_place(part, city.path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return city


def _put_in_place(part: Path, folder: Path) -> None:
    part.chmod(0o755)  # services of another user read it
    for file in part.iterdir():
        file.chmod(0o644)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _build(name: str, osm_file: Path, bounds: Bounds | None, folder: Path, echo: Echo) -> None:
    started_at = time.monotonic()

    def report(line: str) -> None:
        echo(f"{time.monotonic() - started_at:5.0f} s  {line}")

    report(f"reading {osm_file.name} ({osm_file.stat().st_size / 1e6:.1f} MB)" if osm_file.is_file()
           else f"reading {osm_file.name}")  # fmt: skip
    extract = read_extract(osm_file)
    bounds = bounds or bounds_of(extract)
    graph = build_graph(extract.streets, bounds)
    numbers = write_graph(graph, folder / "road_nodes.csv.gz", folder / "road_edges.csv.gz")
    turns = _write_turns(graph, extract, numbers, folder)
    report(f"{len(graph.edges):,} streets, {len(graph.places):,} junctions, {turns:,} banned turns")
    restaurants = food_places(extract, bounds)
    write_restaurants(restaurants, folder / "restaurants.csv")
    buildings = list(building_points(extract, bounds))
    write_buildings(buildings, folder / "building_points.csv.gz")
    numbered = addresses(extract, bounds)
    write_addresses(numbered.items(), folder / "addresses.csv.gz")
    count = sum(one.kind == "restaurant" for one in restaurants)
    report(f"{count:,} restaurants, {len(buildings):,} buildings, {len(numbered):,} addresses")
    report("drawing the map")
    unwrapped, box = _unwrapped(extract, bounds)
    features = write_tiles(map_features(unwrapped, box), box, name, folder / "map.pmtiles")
    size_mb = (folder / "map.pmtiles").stat().st_size / 1e6
    report(f"{features:,} features on the map, {size_mb:.1f} MB")
    _describe(name, osm_file, extract, bounds, folder)


def _write_turns(
    graph: StreetGraph, extract: Extract, numbers: dict[int, int], folder: Path
) -> int:
    """Write the banned turns that leave every street reachable; return their number."""
    turns = find_turns(graph, extract.restrictions)
    if not turns:
        return 0
    streets = read_streets(folder / "road_nodes.csv.gz", folder / "road_edges.csv.gz", UTC_ZONE)
    # every edge and node is in the largest component, so their order is that of the files
    banned = [BannedTurn(start, numbers[via], end) for start, via, end in turns]
    usable = set(usable_turns(streets, banned))
    kept: list[Turn] = [turn for turn, one in zip(turns, banned, strict=True) if one in usable]
    write_turns(kept, numbers, folder / "road_turns.csv.gz")
    return len(kept)


def _unwrapped(extract: Extract, bounds: Bounds) -> tuple[Extract, shapely.Polygon]:
    """The extract and the bounds with longitudes that go on east of 180°."""
    if bounds.west <= bounds.east:
        return extract, shapely.box(bounds.west, bounds.south, bounds.east, bounds.north)
    middle = _centre(bounds)[0]
    base = middle if middle > 0 else middle + 360

    def place(point: Point) -> Point:
        return base + lon_difference_deg(point[0], base), point[1]

    def moved(shape: Shape) -> Shape:
        geometry = shapely.transform(
            shape.geometry, lambda places: np.array([place((x, y)) for x, y in places.tolist()])
        )
        return replace(shape, geometry=geometry)

    def moved_way(way: WayLine) -> WayLine:
        return replace(way, points=[place(point) for point in way.points])

    unwrapped = Extract(
        lines=[moved(one) for one in extract.lines],
        points=[moved(one) for one in extract.points],
        areas=[moved(one) for one in extract.areas],
        coastline=[moved_way(one) for one in extract.coastline],
    )
    return unwrapped, shapely.box(bounds.west, bounds.south, bounds.east + 360, bounds.north)


def _centre(bounds: Bounds) -> Point:
    return wrap_lon_deg(bounds.west + bounds.width_deg / 2), (bounds.south + bounds.north) / 2


def _describe(name: str, osm_file: Path, extract: Extract, bounds: Bounds, folder: Path) -> None:
    centre = _centre(bounds)
    content = {
        "name": name,
        "title": name.replace("-", " ").replace("_", " ").title(),
        "west": bounds.west,
        "south": bounds.south,
        "east": bounds.east,
        "north": bounds.north,
        "centre": [round(one, 6) for one in centre],
        "time_zone": tzfpy.get_tz(*centre) or "UTC",
        "source": osm_file.name,
        "replicated_at": extract.replicated_at,
        "made_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "attribution": OSM_ATTRIBUTION,
    }
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    (folder / CITY_FILE).write_text(text, encoding="utf-8")
