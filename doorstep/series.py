"""Series: numbers over time, published by sources.

    doorstep/v1/series/{source_id}/{measure}    {"at": …, "value": …} or an array of up to 256

A series' name, and its key in Kafka, is `{source_id}/{measure}`.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any, Final, NamedTuple

from doorstep.errors import MalformedFix
from doorstep.fix import ID_PATTERN
from doorstep.fix.instants import instant_of, wire_instant
from doorstep.fix.strict import check_entry, parse_document, read_field

MAX_POINTS: Final = 256
MAX_DEPTH: Final = 8  # known fields need 1, the rest is for unknown ones
NAME_PATTERN: Final = f"{ID_PATTERN}/{ID_PATTERN}"

_name_fullmatch = re.compile(NAME_PATTERN.encode()).fullmatch


class Point(NamedTuple):
    """One value of a series. `at` is the source's clock."""

    at: datetime
    value: float


class RefusedPoint(NamedTuple):
    """Entry `n` of a payload that is not a usable point, with the reason."""

    n: int
    reason: str
    detail: str


def name_of(key: bytes | None) -> str | None:
    """Decode a record's key; None if it is not a series name."""
    return key.decode("ascii") if key is not None and _name_fullmatch(key) else None


def decode_points(payload: bytes) -> list[Point | RefusedPoint]:
    """Decode one payload; a bad entry does not affect the others.

    As strict as for fixes: duplicate keys, quoted numbers, NaN and infinities are refused, unknown
    fields ignored. Raises MalformedFix if the payload has no entries at all.
    """
    value = parse_document(payload)
    entries = value if isinstance(value, list) else [value]
    if not entries:
        raise MalformedFix("empty", "no points")
    if len(entries) > MAX_POINTS:
        raise MalformedFix("too_many_points", f"{len(entries)} of {MAX_POINTS}")
    decoded: list[Point | RefusedPoint] = []
    for n, entry in enumerate(entries):
        try:
            decoded.append(_read_point(entry))
        except MalformedFix as exc:
            decoded.append(RefusedPoint(n, exc.reason, exc.detail))
    return decoded


def _read_point(entry: Any) -> Point:
    entry = check_entry(entry, MAX_DEPTH)
    at, value = read_field(entry, "at"), read_field(entry, "value")
    if isinstance(at, bool) or not isinstance(at, int | str):
        raise MalformedFix("wrong_type", "at must be a string or a whole number")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedFix("wrong_type", "value must be a number")
    if not math.isfinite(float(value)):
        raise MalformedFix("not_finite", "value")
    try:
        return Point(instant_of(at), float(value))
    except MalformedFix as exc:
        raise MalformedFix(exc.reason, exc.detail.replace("fix_at", "at")) from exc


def point_members(at: datetime, value: float) -> dict[str, int | str | float]:
    """Return the JSON members of a point."""
    return {"at": wire_instant(at), "value": value}
