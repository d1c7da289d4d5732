"""Traccar Client's three forms: the query string and the form of OsmAnd's protocol, and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

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
    text_instant,
)

MPS_PER_KNOT = 1852 / 3600
MAX_FIELDS = 100
TOKEN_KEYS = ("id", "deviceid", "device_id")
DECISIVE = frozenset({*TOKEN_KEYS, "lat", "lon", "location", "timestamp"})
COORDINATES = frozenset({"latitude", "longitude"})
COORDS = {
    "accuracy_m": "accuracy",
    "speed_mps": "speed",
    "heading_deg": "heading",
    "altitude_m": "altitude",
}
PAIRS = {**COORDS, "battery": "batt"}
FACTORS = {"speed_mps": MPS_PER_KNOT, "battery": 0.01}  # of pairs; JSON has m/s and 0 to 1
INVALID = frozenset({"0", "false"})
NO_PLACE = Ignored("no_place")  # a heartbeat, or the upload of a push token

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PLUS_LOST = re.compile(r" (?=[0-9]{2}:?[0-9]{2}$)")  # of a zone: a plus is a space in a form


def decode_traccar(query: bytes, body: bytes) -> tuple[str | None, list[PhoneEntry]]:
    """Decode one request to its token, which stands in `id`, and its positions.

    The token is None if there is none. It is not part of what a dead letter keeps.
    """
    if body.lstrip()[:1] == b"{":
        token, entries = _decode_json(body)
        return token or decode_traccar(query, b"")[0], entries
    pairs: dict[str, str] = {}
    twice: set[str] = set()
    try:
        text = b"&".join(filter(None, (query, body))).decode("utf-8")
        for name, value in parse_qsl(
            text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
        ):
            if name in pairs and pairs[name] != value:
                twice.add(name)
            pairs[name] = value
    except ValueError:  # not UTF-8, or too many fields: there is no token to trust
        return None, []
    token = next((pairs.pop(name) for name in TOKEN_KEYS if name in pairs), None)
    payload = urlencode(pairs).encode()
    try:
        if twice & DECISIVE:
            raise MalformedFix("duplicate_key", ", ".join(sorted(twice & DECISIVE)))
        return token, [PhoneEntry(_read_pairs(pairs, twice), payload)]
    except MalformedFix as exc:
        return token, [PhoneEntry(Refused(0, None, None, exc.reason, exc.detail), payload)]


def _read_pairs(pairs: Mapping[str, str], twice: set[str]) -> Fix | Ignored:
    place: dict[str, Any] = {name: pairs[name] for name in ("lat", "lon") if name in pairs}
    if "location" in pairs:
        lat, comma, lon = pairs["location"].partition(",")
        place = {"lat": lat, "lon": lon} if comma else {"lat": lat}
    if not place:
        return NO_PLACE
    if pairs.get("valid", "").lower() in INVALID:
        return Ignored("invalid")
    place = {name: _number(text) for name, text in place.items()}
    values = {name: _number(text) for name, text in pairs.items()}
    names = {**PAIRS, "heading_deg": "bearing"} if "bearing" in pairs else PAIRS
    return nameless_fix(
        text_instant(_PLUS_LOST.sub("+", read_field(pairs, "timestamp")), "timestamp"),
        read_place(place, "lat_deg", "lat"),
        read_place(place, "lon_deg", "lon"),
        optional_fields(values, names, twice, FACTORS),
    )


def _number(text: str) -> float | str:
    """Return a number; the text itself if it is none."""
    return float(text) if len(text) <= strict_json.MAX_NUMBER_DIGITS and _is_number(text) else text


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _decode_json(body: bytes) -> tuple[str | None, list[PhoneEntry]]:
    try:
        document = parse_object(body)
    except MalformedFix as exc:
        return None, [PhoneEntry(Refused(0, None, None, exc.reason, exc.detail), body)]
    token = document.get("device_id")
    location = document.get("location")
    found = location if isinstance(location, list) else [location]
    return token if isinstance(token, str) else None, [
        _json_entry(n, one) for n, one in enumerate(found)
    ]


def _json_entry(n: int, location: Any) -> PhoneEntry:
    payload = json.dumps({"location": location}, default=str).encode()
    try:
        return PhoneEntry(_read_location(location), payload)
    except MalformedFix as exc:
        return PhoneEntry(Refused(n, None, None, exc.reason, exc.detail), payload)


def _read_location(location: Any) -> Fix | Ignored:
    if location is None:
        return NO_PLACE
    entry = check_fix(location, frozenset({"timestamp", "coords"}))
    coords = entry.get("coords")
    if not isinstance(coords, strict_json.Object) or not coords.keys() & COORDINATES:
        return NO_PLACE
    coords = check_fix(coords, COORDINATES)
    at = read_field(entry, "timestamp")
    if not isinstance(at, str):
        raise MalformedFix("wrong_type", "timestamp must be a string")
    optional = optional_fields(coords, COORDS, coords.duplicates)
    battery = entry.get("battery")
    if isinstance(battery, strict_json.Object) and "level" in battery:
        optional["battery"] = battery["level"]
    return nameless_fix(
        instant_of(at),
        read_place(coords, "lat_deg", "latitude"),
        read_place(coords, "lon_deg", "longitude"),
        optional,
    )
