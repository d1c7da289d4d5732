"""A point of a track, and the reasons to skip one.

A point needs a time and a place. Optional fields that are missing, unreadable or impossible are
left out, and the point stays. Times without a zone are UTC.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from doorstep.errors import DoorstepError
from doorstep.fix.instants import MIN_EPOCH_MS
from doorstep.fix.strict import OPTIONAL, RANGES

CHUNK = 500  # points that one call of a parser gets

NO_TIME = "without a time"
BAD_TIME = "time not readable"
NO_POSITION = "without a position"
BAD_POSITION = "position not readable"
CUT = "the rest of the file is not readable"
OFF_THE_GLOBE = "position outside the globe"
LONG_LINE = "line too long"

_LEAP_SECOND = re.compile(r"(\d\d:\d\d):60")
_SLASHED_DAY = re.compile(r"^(\d{4})/(\d\d)/(\d\d)")
T = TypeVar("T")


class UnreadableTrack(DoorstepError):
    """The file is not a readable track."""


@dataclass(frozen=True, slots=True)
class TrackPoint:
    """One point of a track. `values` has the fields of a fix, without time and identity."""

    at: datetime
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A point that is left out. `reason` is one of few; `where` finds it in the file."""

    reason: str
    where: str = ""


def make_point(fields: Mapping[str, object], where: str) -> TrackPoint | Skipped:
    """Build a point of `at`, `lat_deg`, `lon_deg` and optional fields, in their units."""
    at = fields.get("at")
    if at in (None, ""):
        return Skipped(NO_TIME, where)
    if not isinstance(at, datetime):
        try:
            at = parse_instant(at)
        except ValueError:
            return Skipped(BAD_TIME, f"{where}: {str(at)[:40]!r}")
    place = {name: fields.get(name) for name in ("lat_deg", "lon_deg")}
    if any(value in (None, "") for value in place.values()):
        return Skipped(NO_POSITION, where)
    lat_deg, lon_deg = (read_number(value) for value in place.values())
    if lat_deg is None or lon_deg is None:
        return Skipped(BAD_POSITION, where)
    if abs(lat_deg) > 90 or abs(lon_deg) > 180:
        return Skipped(OFF_THE_GLOBE, f"{where}: {lat_deg:.10g}, {lon_deg:.10g}")
    values = {"lat_deg": lat_deg, "lon_deg": lon_deg}
    for name in OPTIONAL:  # recorders write -1 for an unknown accuracy, speed or heading
        least, most = RANGES[name]
        number = read_number(fields.get(name))
        if number is not None and least <= number <= most:
            values[name] = number
    if "heading_deg" in values:
        values["heading_deg"] %= 360
    return TrackPoint(at, values)


def read_number(value: object) -> float | None:
    """Read a finite number; a text may have a decimal comma. None for anything else."""
    if isinstance(value, str):
        text = value.strip()
        value = text.replace(",", ".") if text.count(",") == 1 and "." not in text else text
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def parse_instant(value: object) -> datetime:
    """Read ISO 8601, or an epoch in seconds or milliseconds. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not a time")
    try:
        try:
            epoch = float(value)
        except ValueError:
            return _parse_text(str(value))
        if not math.isfinite(epoch):
            raise ValueError(f"{value!r} is not a time")
        return datetime.fromtimestamp(epoch if abs(epoch) < MIN_EPOCH_MS else epoch / 1000, UTC)
    except (OverflowError, OSError) as exc:  # beyond the years of datetime
        raise ValueError(f"{value!r} is not a time") from exc


def _parse_text(value: str) -> datetime:
    text = _SLASHED_DAY.sub(r"\1-\2-\3", value.strip())
    if text.upper().endswith((" UTC", " GMT", " Z")):
        text = text.rpartition(" ")[0] + "Z"
    text, leap_seconds = _LEAP_SECOND.subn(r"\1:59", text, count=1)
    at = datetime.fromisoformat(text) + timedelta(seconds=leap_seconds)
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def parse_each(
    items: Sequence[T],
    parse: Callable[[Sequence[T]], list[TrackPoint | Skipped]],
    skip: Callable[[T], Skipped],
    errors: tuple[type[Exception], ...],
) -> Iterator[TrackPoint | Skipped]:
    """Parse items in chunks. In a chunk that fails, each item is parsed alone.

    So one bad point costs itself and no other, with parsers that refuse a whole file.
    """
    for start in range(0, len(items), CHUNK):
        chunk = items[start : start + CHUNK]
        try:
            yield from parse(chunk)
            continue
        except errors:
            pass
        for item in chunk:
            try:
                yield from parse([item])
            except errors:
                yield skip(item)
