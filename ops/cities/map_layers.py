"""The map's layers: features in the schema of the bundled map, with the keys that the style uses.

`pmap:kind` is the style's class, `pmap:level` -1 for tunnels and 1 for bridges. Each feature has
the zoom level from which it is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import shapely
from shapely.geometry.base import BaseGeometry

from ops.cities.coastline import sea_within
from ops.cities.extract import Extract, Shape
from ops.cities.tags import Tags, is_building, level_of

MAX_ZOOM: Final = 14
ROADS: Final = {  # class: (kind, zoom)
    "motorway": ("highway", 6), "motorway_link": ("highway", 9),
    "trunk": ("major_road", 7), "trunk_link": ("major_road", 10),
    "primary": ("major_road", 8), "primary_link": ("major_road", 11),
    "secondary": ("medium_road", 9), "secondary_link": ("medium_road", 12),
    "tertiary": ("medium_road", 10), "tertiary_link": ("medium_road", 12),
    "residential": ("minor_road", 12), "unclassified": ("minor_road", 12),
    "living_street": ("minor_road", 12), "road": ("minor_road", 12),
    "service": ("minor_road", 13), "pedestrian": ("other", 13), "track": ("other", 13),
    "footway": ("other", 14), "path": ("other", 14), "cycleway": ("other", 13),
    "steps": ("other", 14), "bridleway": ("other", 14),
}  # fmt: skip
PARKS: Final = {
    "leisure": {"park", "garden", "golf_course", "pitch", "playground", "recreation_ground"},
    "landuse": {"grass", "village_green", "recreation_ground", "allotments", "meadow"},
}
LANDUSE_KINDS: Final = {
    "amenity": {"hospital": "hospital", "school": "school", "university": "school",
                "college": "school", "kindergarten": "school"},
    "landuse": {"industrial": "industrial", "railway": "industrial", "commercial": "industrial"},
}  # fmt: skip
NATURAL: Final = {"wood", "scrub", "grassland", "glacier", "sand", "beach", "heath"}
NATURAL_ALIASES: Final = {"beach": "sand", "heath": "scrub"}
PLACES: Final = {
    "city": ("city", 1, 4), "town": ("city", 2, 8),
    "suburb": ("neighbourhood", 3, 11), "quarter": ("neighbourhood", 3, 13),
    "neighbourhood": ("neighbourhood", 3, 13), "island": ("neighbourhood", 3, 13),
}  # fmt: skip
NAMED_PLACES: Final = ("amenity", "shop", "tourism", "leisure", "railway", "office")
RAILWAYS: Final = {"rail", "light_rail", "narrow_gauge", "monorail"}
STOREY_M: Final = 3.0


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of a layer."""

    layer: str
    geometry: BaseGeometry
    min_zoom: int
    properties: dict[str, str | int | float] = field(default_factory=dict)


def map_features(extract: Extract, box: shapely.Polygon) -> Iterator[Feature]:
    """Yield the features of all layers. `box` has the coordinates of the extract."""
    sea = sea_within(box, [way.points for way in extract.coastline])
    land = box if sea is None else box.difference(sea)
    yield Feature("earth", land, 0)
    if sea is not None:
        yield Feature("water", sea, 0, {"pmap:kind": "ocean"})
    for shape in extract.areas:
        yield from _areas(shape)
    for shape in extract.lines:
        yield from _lines(shape)
    for shape in extract.points:
        yield from _points(shape)


def _areas(shape: Shape) -> Iterator[Feature]:
    tags, geometry = shape.tags, shape.geometry
    if is_building(tags):
        yield Feature("buildings", geometry, 13, {"height": _height_m(tags)})
    elif is_water(tags):
        yield Feature("water", geometry, 9, {"pmap:kind": "water"})
    elif (natural := _natural(tags)) is not None:
        yield Feature("natural", geometry, 10, natural)
    elif (landuse := _landuse(tags)) is not None:
        yield Feature("landuse", geometry, 11, landuse)


def is_water(tags: Tags) -> bool:
    """Whether an area is water."""
    return (
        tags.get("natural") == "water"
        or tags.get("waterway") in ("riverbank", "dock", "boatyard")
        or tags.get("landuse") in ("reservoir", "basin")
    )


def _natural(tags: Tags) -> dict[str, str | int | float] | None:
    if tags.get("natural") in NATURAL:
        return {"natural": NATURAL_ALIASES.get(tags["natural"], tags["natural"])}
    for key, value in (("landuse", "forest"), ("leisure", "nature_reserve")):
        if tags.get(key) == value:
            return {key: value}
    return None


def _landuse(tags: Tags) -> dict[str, str | int | float] | None:
    for key, values in PARKS.items():
        if tags.get(key) in values:
            return {"pmap:kind": "park"}
    for key, kinds in LANDUSE_KINDS.items():
        if tags.get(key) in kinds:
            return {"pmap:kind": kinds[tags[key]]}
    if tags.get("landuse") == "cemetery":
        return {"landuse": "cemetery"}
    if tags.get("aeroway") in ("aerodrome", "runway"):
        return {"aeroway": tags["aeroway"]}
    if tags.get("man_made") == "pier":
        return {"man_made": "pier"}
    if tags.get("highway") in ("footway", "pedestrian"):
        return {"highway": "footway"}
    return None


def _lines(shape: Shape) -> Iterator[Feature]:
    tags, geometry = shape.tags, shape.geometry
    kind, zoom = ROADS.get(tags.get("highway", ""), ("", 0))
    if kind and tags.get("area") != "yes":
        properties: dict[str, str | int | float] = {"pmap:kind": kind, "pmap:level": level_of(tags)}
        if tags.get("name") and tags.get("footway") not in ("sidewalk", "crossing"):
            properties["name"] = tags["name"]
        yield Feature("roads", geometry, zoom, properties)
    elif tags.get("railway") in RAILWAYS and level_of(tags) >= 0:
        yield Feature("transit", geometry, 11, {"pmap:kind": "railway"})
    elif tags.get("waterway") in ("river", "canal", "stream"):
        name = {"name": tags["name"]} if "name" in tags else {}
        yield Feature("physical_line", geometry, 11, {"pmap:kind": "waterway", **name})
    elif tags.get("aeroway") in ("runway", "taxiway"):
        yield Feature("transit", geometry, 11, {"aeroway": tags["aeroway"]})
    elif tags.get("man_made") == "pier" and not geometry.is_ring:
        yield Feature("transit", geometry, 13, {"pmap:kind": "pier"})


def _points(shape: Shape) -> Iterator[Feature]:
    name = shape.tags.get("name")
    if name is None:
        return
    kind, rank, zoom = PLACES.get(shape.tags.get("place", ""), ("", 0, 0))
    if kind:
        properties: dict[str, str | int | float] = {"pmap:kind": kind, "pmap:rank": rank}
        yield Feature("places", shape.geometry, zoom, {**properties, "name": name})
    elif any(key in shape.tags for key in NAMED_PLACES):
        yield Feature("pois", shape.geometry, MAX_ZOOM, {"name": name})


def _height_m(tags: Tags) -> float:
    for key, metres in (("height", 1.0), ("building:levels", STOREY_M)):
        try:
            return round(float(tags[key].removesuffix(" m")) * metres, 1)
        except (KeyError, ValueError):
            continue
    return 2 * STOREY_M
