"""Overland's JSON: GeoJSON features, longitude first, metres per second."""

from __future__ import annotations

import json
from typing import Any

from doorstep import strict_json
from doorstep.errors import MalformedFix
from doorstep.fix import Fix, Refused, instant_of
from doorstep.fix.strict import check_fix, read_field, read_place
from doorstep.phones.entries import (
    Ignored,
    PhoneEntry,
    nameless_fix,
    optional_fields,
    parse_object,
)

FIELDS = {
    "accuracy_m": "horizontal_accuracy",
    "speed_mps": "speed",
    "heading_deg": "course",
    "altitude_m": "altitude",
    "battery": "battery_level",
}


def decode_overland(body: bytes) -> list[PhoneEntry]:
    """Decode one request of up to several hundred positions. Raises MalformedFix."""
    document = parse_object(body)
    found = document.get("locations")
    if not isinstance(found, list):
        raise MalformedFix("missing_field", "locations")
    return [_entry(n, feature) for n, feature in enumerate(found)]


def _entry(n: int, feature: Any) -> PhoneEntry:
    payload = json.dumps({"locations": [feature]}, default=str).encode()
    try:
        return PhoneEntry(_read_feature(feature), payload)
    except MalformedFix as exc:
        return PhoneEntry(Refused(n, None, None, exc.reason, exc.detail), payload)


def _read_feature(feature: Any) -> Fix | Ignored:
    entry = check_fix(feature, frozenset({"geometry", "properties"}))
    properties = check_fix(entry.get("properties"), frozenset({"timestamp"}))
    if "action" in properties or "type" in properties:
        return Ignored("event")  # an entry of the app's log
    geometry = entry.get("geometry")
    if not isinstance(geometry, strict_json.Object):
        raise MalformedFix("missing_field", "geometry")
    coordinates = geometry.get("coordinates")
    if geometry.get("type") != "Point" or not isinstance(coordinates, list):
        raise MalformedFix("wrong_shape", "not a point")
    place = dict(zip(("longitude", "latitude"), coordinates, strict=False))
    at = read_field(properties, "timestamp")
    if not isinstance(at, str):
        raise MalformedFix("wrong_type", "timestamp must be a string")
    return nameless_fix(
        instant_of(at),
        read_place(place, "lat_deg", "latitude"),
        read_place(place, "lon_deg", "longitude"),
        optional_fields(properties, FIELDS, properties.duplicates),
    )
