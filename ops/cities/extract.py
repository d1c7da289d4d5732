"""Reads an OpenStreetMap extract with pyosmium, in two passes over the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import osmium
import shapely
from osmium.osm import Area, Node, Relation, Way
from shapely.geometry.base import BaseGeometry

from data.cities import Bounds
from doorstep.geo import wrap_lon_deg
from ops.cities.errors import CityError
from ops.cities.tags import is_street, restriction_of

Point = tuple[float, float]
SUFFIXES = (".pbf", ".osm", ".osm.gz", ".osm.bz2", ".o5m")
LINE_KEYS = ("highway", "railway", "waterway", "aeroway", "man_made")
AREA_KEYS = (
    "building", "landuse", "leisure", "natural", "amenity", "shop", "aeroway", "man_made",
    "waterway", "water", "highway",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WayLine:
    """A way with the places of its nodes, longitude first."""

    way_id: int
    tags: dict[str, str]
    nodes: list[int]
    points: list[Point]


@dataclass(frozen=True, slots=True)
class Restriction:
    """A turn restriction with a via node. `kind` is `no` or `only`."""

    kind: str
    from_ways: list[int]
    via: int
    to_ways: list[int]


@dataclass(frozen=True, slots=True)
class Shape:
    """A tagged node, way or area with its geometry. `ref` is like n123, w123 or r123."""

    ref: str
    tags: dict[str, str]
    geometry: BaseGeometry


@dataclass(slots=True)
class Extract:
    """What an extract holds."""

    replicated_at: str | None = None
    box: Bounds | None = None  # of the file's header
    streets: list[WayLine] = field(default_factory=list)
    lines: list[Shape] = field(default_factory=list)
    points: list[Shape] = field(default_factory=list)
    areas: list[Shape] = field(default_factory=list)
    coastline: list[WayLine] = field(default_factory=list)
    restrictions: list[Restriction] = field(default_factory=list)


def read_extract(path: Path) -> Extract:
    """Read a .osm.pbf or another OSM file. Raises CityError."""
    if not path.is_file():
        raise CityError(f"there is no file {path}: give --osm the path of an .osm.pbf extract")
    if not path.name.endswith(SUFFIXES):
        raise CityError(f"{path} is no OSM extract: --osm takes a file like CITY.osm.pbf")
    try:
        return _read(path)
    except (RuntimeError, osmium.InvalidLocationError) as exc:
        raise CityError(
            f"{path} cannot be read as an OSM extract ({exc}): download it again, or cut it with "
            "`osmium extract`"
        ) from exc


def _read(path: Path) -> Extract:
    extract = Extract()
    reader = osmium.io.Reader(str(path))
    try:
        header = reader.header()
        extract.replicated_at = header.get("osmosis_replication_timestamp") or None
        box = header.box()
        if box.valid():
            low, high = box.bottom_left, box.top_right
            extract.box = Bounds(low.lon, low.lat, high.lon, high.lat)
    finally:
        reader.close()
    objects = (
        osmium.FileProcessor(str(path))
        .with_locations()
        .with_areas(osmium.filter.KeyFilter(*AREA_KEYS))
        .with_filter(osmium.filter.EmptyTagFilter())
    )
    wkb = osmium.geom.WKBFactory()
    for one in objects:
        tags = dict(one.tags)
        if isinstance(one, Node):
            point = shapely.Point(one.location.lon, one.location.lat)
            extract.points.append(Shape(f"n{one.id}", tags, point))
        elif isinstance(one, Way):
            _add_way(extract, one, tags)
        elif isinstance(one, Area):
            _add_area(extract, one, tags, wkb)
        elif isinstance(one, Relation):
            extract.restrictions += _restrictions(one, tags)
    return extract


def _add_way(extract: Extract, way: Way, tags: dict[str, str]) -> None:
    located = [(node.ref, node.location) for node in way.nodes if node.location.valid()]
    if len(located) < 2:
        return  # the extract lacks its nodes
    nodes = [ref for ref, _ in located]
    points = [(place.lon, place.lat) for _, place in located]
    line = WayLine(way.id, tags, nodes, points)
    if tags.get("natural") == "coastline":
        extract.coastline.append(line)
    if is_street(tags):
        extract.streets.append(line)
    if any(key in tags for key in LINE_KEYS):
        extract.lines.append(Shape(f"w{way.id}", tags, shapely.LineString(points)))


def _add_area(extract: Extract, area: Area, tags: dict[str, str], wkb: Any) -> None:
    try:
        geometry = shapely.from_wkb(bytes.fromhex(wkb.create_multipolygon(area)))
    except (RuntimeError, shapely.errors.GEOSException):
        return  # rings that do not close
    kind = "w" if area.from_way() else "r"
    extract.areas.append(Shape(f"{kind}{area.orig_id()}", tags, geometry))


def _restrictions(relation: Relation, tags: dict[str, str]) -> Iterator[Restriction]:
    kind = restriction_of(tags)
    members = [((one.role, one.type), one.ref) for one in relation.members]
    via = [ref for kind_of, ref in members if kind_of == ("via", "n")]
    if kind is None or len(via) != 1:
        return
    ways = {
        wanted: [ref for kind_of, ref in members if kind_of == (wanted, "w")]
        for wanted in ("from", "to")
    }
    if ways["from"] and ways["to"]:
        yield Restriction(kind, ways["from"], via[0], ways["to"])


def bounds_of(extract: Extract) -> Bounds:
    """The bounds of the file's header, or else of its streets. Raises CityError without any."""
    places = [point for street in extract.streets for point in street.points]
    if not places:
        raise CityError(
            "the extract has no streets: check that it is of a city, and complete (made with "
            "`osmium extract`, complete ways)"
        )
    if extract.box is not None:
        return extract.box
    lons = sorted({lon for lon, _ in places})
    lats = [lat for _, lat in places]
    # the widest gap between longitudes is outside, which may put ±180° inside
    gaps = [(b - a, a, b) for a, b in pairwise(lons)]
    gaps.append((lons[0] + 360 - lons[-1], lons[-1], lons[0]))
    _, east, west = max(gaps)
    return Bounds(wrap_lon_deg(west), min(lats), wrap_lon_deg(east), max(lats))
