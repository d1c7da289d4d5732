"""House numbers of an extract. Pure, but for the writing."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable
from pathlib import Path

from data.cities import Bounds
from ops.cities.extract import Extract

MAX_TEXT = 120  # what is longer is no address

Address = tuple[str, str]
"""Street, house number."""


def addresses(extract: Extract, bounds: Bounds) -> dict[Address, tuple[float, float]]:
    """Find the house numbers within bounds, each once: an entrance before its building.

    `addr:place` stands in for the street where houses are numbered by village or square.
    """
    found: dict[Address, tuple[float, float]] = {}
    for shape in extract.points + extract.areas:
        street = shape.tags.get("addr:street") or shape.tags.get("addr:place")
        text = shape.tags.get("addr:housenumber")
        if not street or not text or max(len(street), len(text)) > MAX_TEXT:
            continue
        point = shape.geometry.representative_point()
        if not bounds.contains(point.x, point.y):
            continue
        for number in text.replace(",", ";").split(";"):  # several of one house
            if number.strip():
                found.setdefault((street, number.strip()), (point.x, point.y))
    return found


def write_addresses(found: Iterable[tuple[Address, tuple[float, float]]], path: Path) -> None:
    """Write house numbers, a gzipped CSV."""
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("lon", "lat", "street", "housenumber"))
        for (street, number), (lon, lat) in sorted(found):
            rows.writerow((f"{lon:.7f}", f"{lat:.7f}", street, number))
