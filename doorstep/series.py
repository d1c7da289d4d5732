"""Series: any number over time, as a source publishes it.

    doorstep/v1/series/{source_id}/{measure}    {"at": …, "value": …} or an array of up to 256

A series' name is `{source_id}/{measure}`, which is also its key in Kafka.
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
MAX_DEPTH: Final = 8  # a point's is 1, the rest is left for unknown fields
NAME_PATTERN: Final = f"{ID_PATTERN}/{ID_PATTERN}"

_name_fullmatch = re.compile(NAME_PATTERN.encode()).fullmatch


class Point(NamedTuple):
    """One value of a series. `at` is the source's clock."""

    at: datetime
    value: float


class RefusedPoint(NamedTuple):
    """Entry `n` of a payload, and why it can't be used."""

    n: int
    reason: str
    detail: str


def name_of(key: bytes | None) -> str | None:
    """Read a record's key; None if it is no series' name."""
    return key.decode("ascii") if key is not None and _name_fullmatch(key) else None


def decode_points(payload: bytes) -> list[Point | RefusedPoint]:
    """Decode one payload, each entry by itself. Raises MalformedFix when nothing can be used.

    It is as strict as a fix: doubled keys, numbers in quotes, NaN and infinities are refused,
    unknown fields ignored.
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
    """Write one point as a source does."""
    return {"at": wire_instant(at), "value": value}
