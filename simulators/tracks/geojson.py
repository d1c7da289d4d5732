"""GeoJSON: points with a time, and lines with one time per coordinate (`coordTimes`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from simulators.tracks.fields import FieldNames
from simulators.tracks.points import (
    NO_TIME,
    Skipped,
    TrackPoint,
    UnreadableTrack,
    make_point,
)

BAD_FEATURE = "feature not readable"


def read_geojson(
    value: Mapping[str, msgspec.Raw], names: FieldNames
) -> Iterator[TrackPoint | Skipped]:
    """Read a feature collection or one feature. Raises UnreadableTrack."""
    if "features" in value:
        try:
            features = msgspec.json.decode(value["features"], type=list[msgspec.Raw])
        except msgspec.DecodeError as exc:
            raise UnreadableTrack("`features` is no array") from exc
    else:
        features = [msgspec.Raw(msgspec.json.encode(value))]
    for number, raw in enumerate(features, start=1):
        yield from _read_feature(msgspec.json.decode(raw), f"feature {number:,}", names)


def _read_feature(feature: Any, where: str, names: FieldNames) -> Iterator[TrackPoint | Skipped]:
    try:
        geometry = feature.get("geometry", feature) or {"type": "nothing"}
        properties = feature.get("properties") or {}
        kind: str = geometry["type"]
        positions: Any = geometry.get("coordinates")
        if kind == "Point":
            fields = names.read(properties) | _place(positions)
            yield make_point(fields, where)
        elif kind == "LineString":
            yield from _read_line(positions, properties, where)
        elif kind == "MultiLineString":
            times = _times_of(properties) or []
            for index, part in enumerate(positions):
                part_times = times[index] if index < len(times) else []
                yield from _read_line(part, {"coordTimes": part_times}, where)
    except (AttributeError, LookupError, TypeError):
        yield Skipped(BAD_FEATURE, where)


def _read_line(
    positions: list[Any], properties: Mapping[str, Any], where: str
) -> Iterator[TrackPoint | Skipped]:
    times = _times_of(properties) or []
    for index, position in enumerate(positions):
        spot = f"{where}, coordinate {index + 1:,}"
        if index >= len(times):
            yield Skipped(NO_TIME, spot)
        else:
            yield make_point({"at": times[index], **_place(position)}, spot)


def _times_of(properties: Mapping[str, Any]) -> Any:
    # names of togeojson, old and new: one time per coordinate
    per_coordinate = properties.get("coordinateProperties")
    nested = per_coordinate.get("times") if isinstance(per_coordinate, dict) else None
    return properties.get("coordTimes") or properties.get("times") or nested


def _place(position: Any) -> dict[str, object]:
    if not isinstance(position, list) or len(position) < 2:
        return {"lat_deg": "?", "lon_deg": "?"}
    place: dict[str, object] = {"lon_deg": position[0], "lat_deg": position[1]}
    if len(position) > 2:
        place["altitude_m"] = position[2]
    return place
