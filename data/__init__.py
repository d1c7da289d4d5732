"""Bundled input data, each folder with its source and licence in a PROVENANCE.md.

Nothing is read at import: these helpers only say where the files are.
"""

from pathlib import Path
from typing import Final

DATA_DIR: Final = Path(__file__).resolve().parent

# Shown wherever the Florence map or anything derived from it is drawn (ODbL).
OSM_ATTRIBUTION: Final = "© OpenStreetMap contributors"


def data_path(*parts: str) -> Path:
    """Find a bundled file or folder. Raises FileNotFoundError if the project doesn't have it."""
    path = DATA_DIR.joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(f"no bundled data at {path}")
    return path


def firenze_tiles() -> Path:
    """Find Florence's vector map, a PMTiles archive."""
    return data_path("firenze", "firenze.pmtiles")


def firenze_road_nodes() -> Path:
    """Find the street graph's nodes, a gzipped CSV."""
    return data_path("firenze", "road_nodes.csv.gz")


def firenze_road_edges() -> Path:
    """Find the street graph's edges, a gzipped CSV."""
    return data_path("firenze", "road_edges.csv.gz")


def firenze_food_places() -> Path:
    """Find Florence's restaurants, cafés and bars, a CSV: poi_id, lon, lat, kind, name, …"""
    return data_path("firenze", "food_pois.csv")


def firenze_buildings() -> Path:
    """Find the centres of Florence's buildings, a gzipped CSV: where orders are delivered."""
    return data_path("firenze", "building_points.csv.gz")


def french_cities() -> Path:
    """Find the French communes of 10,000 inhabitants and more, a CSV."""
    return data_path("french_cities", "french_cities.csv")


def world_backdrop() -> Path:
    """Find the outlines of France and its neighbours, GeoJSON."""
    return data_path("world_backdrop", "france_neighbours_ne10m.geojson")


def meal_delivery_calibration() -> Path:
    """Find what real meal delivery looks like, in aggregates: times, distances, hourly shares."""
    return data_path("mdrp_calibration", "grubhub_calibration.json")
