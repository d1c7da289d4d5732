"""Google Timeline as phones export it since 2024.

Android writes an object: `semanticSegments` with `timelinePath`, and `rawSignals` with `position`.
iOS writes an array of segments, whose paths count minutes from the segment's start. Visits and
activities are Google's conclusions, no positions, and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from simulators.tracks.points import (
    BAD_TIME,
    Skipped,
    TrackPoint,
    make_point,
    parse_instant,
    read_number,
)

BAD_SEGMENT = "segment not readable"
BAD_SIGNAL = "raw signal not readable"
MAX_OFFSET_MIN = 366 * 1440.0

# "43.77°, 11.25°" of Android, "geo:43.77,11.25" of iOS
_PLACE = re.compile(r"(?:geo:)?\s*(-?[0-9.]+)°?\s*,\s*(-?[0-9.]+)°?", re.ASCII)


def read_android(export: Mapping[str, msgspec.Raw]) -> Iterator[TrackPoint | Skipped]:
    """Read the paths of segments and the raw positions."""
    for number, segment in enumerate(_members(export.get("semanticSegments")), start=1):
        yield from _read_segment(segment, number)
    for number, raw in enumerate(_members(export.get("rawSignals")), start=1):
        signal = _object(raw)
        position = signal.get("position") if signal is not None else None
        where = f"raw signal {number:,}"
        if signal is None or not isinstance(position, dict | None):
            yield Skipped(BAD_SIGNAL, where)
        elif position is not None:  # else a Wi-Fi scan or an activity
            yield make_point(_fields_of_position(position), where)


def read_ios(segments: list[msgspec.Raw]) -> Iterator[TrackPoint | Skipped]:
    """Read the paths of segments."""
    for number, segment in enumerate(segments, start=1):
        yield from _read_segment(segment, number)


def _read_segment(raw: msgspec.Raw, number: int) -> Iterator[TrackPoint | Skipped]:
    segment = _object(raw)
    path = segment.get("timelinePath", []) if segment is not None else None
    if segment is None or not isinstance(path, list):
        yield Skipped(BAD_SEGMENT, f"segment {number:,}")
        return
    for index, step in enumerate(path, start=1):
        where = f"segment {number:,}, point {index:,}"
        if not isinstance(step, dict):
            yield Skipped(BAD_SEGMENT, where)
            continue
        at = step.get("time")
        if at is None and "durationMinutesOffsetFromStartTime" in step:
            try:
                at = parse_instant(segment.get("startTime")) + _offset_of(step)
            except (ValueError, OverflowError):
                yield Skipped(BAD_TIME, where)
                continue
        yield make_point({"at": at, **_place_of(step.get("point"))}, where)


def _fields_of_position(position: Mapping[str, Any]) -> dict[str, object]:
    return {
        "at": position.get("timestamp"),
        **_place_of(position.get("LatLng", position.get("latLng"))),
        "accuracy_m": position.get("accuracyMeters"),
        "altitude_m": position.get("altitudeMeters"),
        "speed_mps": position.get("speedMetersPerSecond"),
    }


def _offset_of(step: Mapping[str, Any]) -> timedelta:
    minutes = read_number(step["durationMinutesOffsetFromStartTime"])
    if minutes is None or not 0 <= minutes <= MAX_OFFSET_MIN:
        raise ValueError("an offset is a number of minutes")
    return timedelta(minutes=minutes)


def _place_of(text: object) -> dict[str, object]:
    if text is None:
        return {}
    match = _PLACE.fullmatch(str(text).strip())
    lat_deg, lon_deg = match.groups() if match else ("?", "?")
    return {"lat_deg": lat_deg, "lon_deg": lon_deg}


def _members(raw: msgspec.Raw | None) -> list[msgspec.Raw]:
    if raw is None:
        return []
    try:
        return msgspec.json.decode(raw, type=list[msgspec.Raw])
    except msgspec.DecodeError:
        return []


def _object(raw: msgspec.Raw) -> dict[str, Any] | None:
    value = msgspec.json.decode(raw)
    return value if isinstance(value, dict) else None
