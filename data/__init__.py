"""Bundled input data, each folder with its source and licence in a PROVENANCE.md.

Nothing is read at import: these helpers only say where the files are. `data.cities` reads the
folders of cities, the bundled one and those of `./run city add`.
"""

from pathlib import Path
from typing import Final

DATA_DIR: Final = Path(__file__).resolve().parent

BUNDLED_CITY: Final = "firenze"
"""The example: the only city that comes with the project."""

# Shown wherever a map or anything derived from it is drawn (ODbL).
OSM_ATTRIBUTION: Final = "© OpenStreetMap contributors"


def data_path(*parts: str) -> Path:
    """Find a bundled file or folder. Raises FileNotFoundError if the project doesn't have it."""
    path = DATA_DIR.joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(f"no bundled data at {path}")
    return path


def french_cities() -> Path:
    """Find the French communes of 10,000 inhabitants and more, a CSV."""
    return data_path("french_cities", "french_cities.csv")


def world_backdrop() -> Path:
    """Find the outlines of France and its neighbours, GeoJSON."""
    return data_path("world_backdrop", "france_neighbours_ne10m.geojson")


def meal_delivery_calibration() -> Path:
    """Find what real meal delivery looks like, in aggregates: times, distances, hourly shares."""
    return data_path("mdrp_calibration", "grubhub_calibration.json")
