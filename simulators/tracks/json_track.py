"""A JSON file: Google Timeline or GeoJSON, by what it holds."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import msgspec

from simulators.tracks.fields import FieldNames
from simulators.tracks.geojson import read_geojson
from simulators.tracks.points import Skipped, TrackPoint, UnreadableTrack
from simulators.tracks.sources import MIB, read_json_bytes
from simulators.tracks.timeline import read_android, read_ios

Members = dict[str, msgspec.Raw] | list[msgspec.Raw]
MAX_LENIENT_BYTES = 32 * MIB  # of a file with NaN or Infinity, which Python's json writes


def read_json(
    stream: io.BufferedReader, names: FieldNames
) -> tuple[str, Iterator[TrackPoint | Skipped]]:
    """Return the format and the points. Raises UnreadableTrack if it is neither."""
    data = read_json_bytes(stream)
    try:
        value = _decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as exc:
        raise UnreadableTrack(f"not readable as JSON: {exc}") from exc
    if isinstance(value, list):
        return "Google Timeline (iOS)", read_ios(value)
    if "semanticSegments" in value or "rawSignals" in value:
        return "Google Timeline (Android)", read_android(value)
    if "type" in value and ({"features", "geometry", "coordinates"} & value.keys()):
        return "GeoJSON", read_geojson(value, names)
    raise UnreadableTrack("the JSON is neither a Google Timeline nor GeoJSON")


def _decode(data: bytes) -> Members:
    decoder: msgspec.json.Decoder[Members] = msgspec.json.Decoder(Members)
    try:
        return decoder.decode(data)
    except msgspec.DecodeError:
        if len(data) > MAX_LENIENT_BYTES or not (b"NaN" in data or b"Infinity" in data):
            raise
    value = json.loads(data, parse_constant=lambda _name: None)
    return decoder.decode(msgspec.json.encode(value))
