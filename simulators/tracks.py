"""Reads recorded tracks (GPX, CSV, GeoJSON) as a list of points in time order.

Times without a zone are UTC. Fields that a file does not have, such as accuracy, are left out.
"""

from __future__ import annotations

import csv
import io
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from doorstep.errors import DoorstepError

SECONDS_BELOW = 1e11  # an epoch below this is in seconds (year 5138), above in milliseconds

# Known column names, in order of preference.
COLUMNS = {
    "at": ("fix_at", "time", "timestamp", "datetime", "date_time", "fix_ts", "ts", "t", "date"),
    "lat_deg": ("lat_deg", "latitude", "lat", "y"),
    "lon_deg": ("lon_deg", "longitude", "lon", "lng", "long", "x"),
    "accuracy_m": ("accuracy_m", "accuracy", "hdop_m", "horizontal_accuracy"),
    "speed_mps": ("speed_mps", "speed"),
    "heading_deg": ("heading_deg", "heading", "bearing", "course", "azimuth"),
    "altitude_m": ("altitude_m", "altitude", "elevation", "ele", "alt"),
}
NO_TRACK = "not a GPX, CSV or GeoJSON track"
OPTIONAL = ("accuracy_m", "speed_mps", "heading_deg", "altitude_m")


class UnreadableTrack(DoorstepError):
    """The file is not a readable track."""


@dataclass(frozen=True, slots=True)
class TrackPoint:
    """One point of a track. `values` has the fields of a fix, without time and identity."""

    at: datetime
    values: Mapping[str, float]


def read_tracks(paths: Iterable[Path]) -> list[TrackPoint]:
    """Read files as one track. Raises UnreadableTrack."""
    points = [point for path in paths for point in read_track(path)]
    if not points:
        raise UnreadableTrack("the track has no points with a time")
    return sorted(points, key=lambda point: point.at)


def read_track(path: Path) -> list[TrackPoint]:
    """Read one file. The content decides its format. Raises UnreadableTrack."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise UnreadableTrack(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise UnreadableTrack(f"{path}: {NO_TRACK}") from exc
    if not text.strip():
        raise UnreadableTrack(f"{path}: the file is empty")
    start = text.lstrip()[:1]
    read = {"<": _read_gpx, "{": _read_geojson}.get(start, _read_csv)
    try:
        return list(read(text))
    except (LookupError, TypeError, json.JSONDecodeError, ET.ParseError, csv.Error) as exc:
        raise UnreadableTrack(f"{path}: {NO_TRACK}: {exc}") from exc
    except ValueError as exc:
        raise UnreadableTrack(f"{path}: {exc}") from exc


def parse_instant(value: str | float) -> datetime:
    """Read ISO 8601, or an epoch in seconds or milliseconds. Raises ValueError."""
    try:
        epoch = float(value)
    except ValueError:
        at = datetime.fromisoformat(str(value).strip())
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    if not math.isfinite(epoch):
        raise ValueError(f"{value!r} is not a time")
    return datetime.fromtimestamp(epoch if abs(epoch) < SECONDS_BELOW else epoch / 1000, UTC)


def _read_gpx(text: str) -> Iterator[TrackPoint]:
    root = ET.fromstring(text)  # noqa: S314 - the user's own file; expat limits entities
    if root.tag.rpartition("}")[2] != "gpx":
        raise ValueError(f"{NO_TRACK}: the XML root is {root.tag}")
    for number, element in enumerate(root.findall(".//{*}trkpt"), start=1):
        time = element.findtext("{*}time")
        if time is None:
            raise ValueError(f"track point {number} has no time")
        row: dict[str, Any] = {"lat": element.get("lat"), "lon": element.get("lon")}
        row["ele"] = element.findtext("{*}ele")
        # GPX 1.0 has speed and course in the point, 1.1 in extensions
        for name in ("speed", "course", "accuracy"):
            row[name] = element.findtext(f".//{{*}}{name}")
        yield _point({**row, "time": time})


def _read_csv(text: str) -> Iterator[TrackPoint]:
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    names = {(name or "").strip().lower() for name in reader.fieldnames or []}
    needed = ("at", "lat_deg", "lon_deg")
    if not any(names & set(COLUMNS[field]) for field in needed):
        raise ValueError(NO_TRACK)
    for field in needed:
        if not names & set(COLUMNS[field]):
            raise ValueError(f"no column {' or '.join(COLUMNS[field][:3])} in {sorted(names)}")
    for row in reader:
        yield _point({(name or "").strip().lower(): value for name, value in row.items()})


def _read_geojson(text: str) -> Iterator[TrackPoint]:
    value = json.loads(text)
    features = value["features"] if value["type"] == "FeatureCollection" else [value]
    for feature in features:
        geometry = feature["geometry"] or {"type": "nothing"}
        properties = feature.get("properties") or {}
        if geometry["type"] == "Point":
            yield _point({**_lower(properties), **_coordinates(geometry["coordinates"])})
        elif geometry["type"] == "LineString":
            # togeojson's format: one time per coordinate
            times = properties.get("coordTimes") or properties.get("times")
            if times is None and isinstance(properties.get("coordinateProperties"), dict):
                times = properties["coordinateProperties"].get("times")
            if times is None:
                raise ValueError("a LineString needs `coordTimes`, one time per coordinate")
            for position, time in zip(geometry["coordinates"], times, strict=True):
                yield _point({**_coordinates(position), "time": time})


def _lower(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in properties.items()}


def _coordinates(position: list[float]) -> dict[str, Any]:
    ele = position[2] if len(position) > 2 else None
    return {"lon": position[0], "lat": position[1], "ele": ele}


def _point(row: Mapping[str, Any]) -> TrackPoint:
    values = {name: float(_require(row, name)) for name in ("lat_deg", "lon_deg")}
    for name in OPTIONAL:
        found = _find(row, name)
        if found is not None and math.isfinite(float(found)) and _is_possible(name, float(found)):
            values[name] = float(found)
    if "heading_deg" in values:
        values["heading_deg"] %= 360
    return TrackPoint(parse_instant(_require(row, "at")), values)


def _is_possible(name: str, value: float) -> bool:
    """Recorders write -1 for an unknown speed, accuracy or heading."""
    return name == "altitude_m" or value >= 0


def _require(row: Mapping[str, Any], field: str) -> Any:
    found = _find(row, field)
    if found is None:
        raise ValueError(f"a point without {field.removesuffix('_deg')}: {dict(row)}")
    return found


def _find(row: Mapping[str, Any], field: str) -> Any:
    for name in COLUMNS[field]:
        if row.get(name) not in (None, ""):
            return row[name]
    return None
