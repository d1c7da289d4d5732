"""NMEA 0183, the sentences of a GPS receiver, through pynmea2.

Sentences of the same time of day make one point: RMC has the date, the speed and the course, GGA
the altitude. A log without RMC needs ZDA for the date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pynmea2

from simulators.tracks.fields import SPEED_UNITS
from simulators.tracks.points import LONG_LINE, Skipped, TrackPoint, make_point

SENTENCES = ("RMC", "GGA", "ZDA")
PROPRIETARY = "P"  # the first letter of a maker's own sentences, such as $PGRMC
BAD_SENTENCE = "sentence not readable (checksum)"
NO_DATE = "without a date"
NO_FIX = "the receiver had no fix"
HALF_DAY = timedelta(hours=12)


@dataclass(slots=True)
class _Epoch:
    """The sentences of one time of day."""

    at: time
    where: str
    day: date | None = None
    has_position: bool = False  # RMC or GGA, with a fix or without
    fields: dict[str, object] = field(default_factory=dict)


def read_nmea(lines: Iterable[tuple[int, str | None]]) -> Iterator[TrackPoint | Skipped]:
    """Read a log. Other sentences, and what precedes the `$`, are left out."""
    epoch: _Epoch | None = None
    last: datetime | None = None  # the newest instant with a known date
    for number, line in lines:
        where = f"line {number:,}"
        if line is None:
            yield Skipped(LONG_LINE, where)
            continue
        text = line[line.find("$") :] if "$" in line else ""
        if text[3:6].upper() not in SENTENCES or text[1:2].upper() == PROPRIETARY:
            continue
        try:
            sentence = pynmea2.parse(text.strip())
            at = sentence.timestamp
        except (pynmea2.ParseError, ValueError):
            yield Skipped(BAD_SENTENCE, where)
            continue
        if not isinstance(at, time):
            yield Skipped(NO_FIX if not at else BAD_SENTENCE, where)
            continue
        if epoch is None or epoch.at != at:
            if epoch is not None:
                last, item = _finish(epoch, last)
                yield from item
            epoch = _Epoch(at, where)
        _add(epoch, sentence)
    if epoch is not None:
        yield from _finish(epoch, last)[1]


def _add(epoch: _Epoch, sentence: Any) -> None:
    kind = sentence.sentence_type
    if kind in ("RMC", "ZDA"):
        try:
            day = sentence.datestamp
        except (TypeError, ValueError):
            day = None
        epoch.day = day if isinstance(day, date) else epoch.day
    if kind == "ZDA":
        return
    epoch.has_position = True
    has_fix = sentence.status == "A" if kind == "RMC" else sentence.gps_qual not in (None, 0)
    if not has_fix:
        return
    try:
        latitude, longitude = sentence.latitude, sentence.longitude
    except ValueError:
        latitude = longitude = "?"
    if sentence.lat and sentence.lon:
        epoch.fields |= {"lat_deg": latitude, "lon_deg": longitude}
    if kind == "GGA":
        epoch.fields["altitude_m"] = sentence.altitude
    else:
        if isinstance(sentence.spd_over_grnd, float):
            epoch.fields["speed_mps"] = sentence.spd_over_grnd * SPEED_UNITS["kn"]
        epoch.fields["heading_deg"] = sentence.true_course


def _finish(
    epoch: _Epoch, last: datetime | None
) -> tuple[datetime | None, list[TrackPoint | Skipped]]:
    """Return the newest known instant, and the epoch's point if it has one."""
    at: datetime | None = None
    if epoch.day is not None:
        at = datetime.combine(epoch.day, epoch.at, UTC)
    elif last is not None:  # the date of the sentence before, or the day after it
        at = datetime.combine(last.date(), epoch.at, UTC)
        if last - at > HALF_DAY:
            at += timedelta(days=1)
    if not epoch.has_position:
        return at or last, []
    if not epoch.fields:
        return at or last, [Skipped(NO_FIX, epoch.where)]
    if at is None:
        return last, [Skipped(NO_DATE, epoch.where)]
    return at, [make_point({**epoch.fields, "at": at}, epoch.where)]
