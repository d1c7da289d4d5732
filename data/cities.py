"""The folders of cities: the bundled one, and those that `./run city add` made.

A folder holds city.json, map.pmtiles, restaurants.csv, road_nodes.csv.gz, road_edges.csv.gz,
building_points.csv.gz and, where turns are restricted, road_turns.csv.gz. One that was added also
holds addresses.csv.gz.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from data import BUNDLED_CITY, DATA_DIR, OSM_ATTRIBUTION

CITY_FILE: Final = "city.json"
CITY_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


class UnknownCity(LookupError):
    """There is no folder of this city, or it is incomplete."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A box in degrees. One that crosses the meridian of ±180° has `west` above `east`."""

    west: float
    south: float
    east: float
    north: float

    @property
    def width_deg(self) -> float:
        """From west to east."""
        return self.east - self.west + (360.0 if self.west > self.east else 0.0)

    def contains(self, lon_deg: float, lat_deg: float) -> bool:
        """Whether a place is inside."""
        if not self.south <= lat_deg <= self.north:
            return False
        if self.west <= self.east:
            return self.west <= lon_deg <= self.east
        return lon_deg >= self.west or lon_deg <= self.east


@dataclass(frozen=True, slots=True)
class CityFolder:
    """A city's description, and where its files are."""

    path: Path
    name: str
    title: str
    bounds: Bounds
    centre: tuple[float, float]  # longitude first
    time_zone: str
    made_at: datetime
    source: str
    replicated_at: str | None = None
    attribution: str = OSM_ATTRIBUTION

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)

    @property
    def tiles(self) -> Path:
        """The vector map, a PMTiles archive."""
        return self.path / "map.pmtiles"

    @property
    def road_nodes(self) -> Path:
        """The street graph's nodes, a gzipped CSV."""
        return self.path / "road_nodes.csv.gz"

    @property
    def road_edges(self) -> Path:
        """The street graph's edges, a gzipped CSV."""
        return self.path / "road_edges.csv.gz"

    @property
    def road_turns(self) -> Path:
        """The turns that are not allowed, a gzipped CSV. Missing where there are none."""
        return self.path / "road_turns.csv.gz"

    @property
    def restaurants(self) -> Path:
        """Restaurants, cafés and bars, a CSV: poi_id, lon, lat, kind, name, …"""
        return self.path / "restaurants.csv"

    @property
    def buildings(self) -> Path:
        """Points in buildings, a gzipped CSV: where simulated orders are delivered."""
        return self.path / "building_points.csv.gz"

    @property
    def addresses(self) -> Path:
        """House numbers, a gzipped CSV: lon, lat, street, housenumber. Florence has none."""
        return self.path / "addresses.csv.gz"


def read_city(path: Path) -> CityFolder:
    """Read a city's folder. Raises UnknownCity."""
    try:
        content: dict[str, Any] = json.loads((path / CITY_FILE).read_bytes())
        return CityFolder(
            path=path,
            name=content["name"],
            title=content["title"],
            bounds=Bounds(*(float(content[side]) for side in ("west", "south", "east", "north"))),
            centre=(float(content["centre"][0]), float(content["centre"][1])),
            time_zone=content["time_zone"],
            made_at=datetime.fromisoformat(content["made_at"]),
            source=content["source"],
            replicated_at=content["replicated_at"],
            attribution=content["attribution"],
        )
    except FileNotFoundError:
        raise UnknownCity(f"there is no {path / CITY_FILE}") from None
    except (ValueError, KeyError, TypeError, IndexError) as exc:
        raise UnknownCity(f"{path / CITY_FILE} is no description of a city: {exc!r}") from exc


def bundled_city() -> CityFolder:
    """The example that comes with the project."""
    return read_city(DATA_DIR / BUNDLED_CITY)


def find_city(name: str, cities_dir: Path | None) -> CityFolder:
    """Find a city by its name. Raises UnknownCity."""
    if name == BUNDLED_CITY:
        return bundled_city()
    if cities_dir is None or not CITY_NAME.fullmatch(name):
        raise UnknownCity(f"there is no city {name!r}")
    return read_city(cities_dir / name)


def list_cities(cities_dir: Path | None) -> list[CityFolder]:
    """All cities, the bundled one first. Incomplete folders are left out."""
    return [bundled_city(), *_added_cities(cities_dir)]


def _added_cities(cities_dir: Path | None) -> Iterator[CityFolder]:
    if cities_dir is None or not cities_dir.is_dir():
        return
    for path in sorted(cities_dir.iterdir()):
        if not CITY_NAME.fullmatch(path.name) or path.name == BUNDLED_CITY:
            continue
        try:
            yield read_city(path)
        except UnknownCity:
            continue
