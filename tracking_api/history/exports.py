"""A driver's past as a file: GPX, GeoJSON or CSV, written piece by piece. Pure.

Each writer has a head, a text for each page of fixes, and a foot; what is written so far is never
kept, so a month is as cheap as a minute.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, Protocol
from xml.sax.saxutils import escape

from doorstep.http.instants import format_instant
from tracking_api.history.features import Jumps, point_feature
from tracking_api.track.visibility import Position

Kind = Literal["gpx", "geojson", "csv"]
MEDIA_TYPES: dict[Kind, str] = {
    "gpx": "application/gpx+xml",
    "geojson": "application/geo+json",
    "csv": "text/csv; charset=utf-8",
}
CSV_COLUMNS = [
    "driver_id",
    "fix_at",
    "received_at",
    "lon_deg",
    "lat_deg",
    "accuracy_m",
    "speed_mps",
    "heading_deg",
    "jump",
]
NEW_SEGMENT_AFTER = timedelta(minutes=5)  # a GPX line is not drawn over a longer silence
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a formula begins in a spreadsheet


class Writer(Protocol):
    """Writes one file."""

    def head(self) -> str: ...
    def page(self, spots: Sequence[Position]) -> str: ...
    def foot(self) -> str: ...


class CsvWriter:
    """A line a fix. A text that a spreadsheet would run gets an apostrophe before it."""

    def __init__(self, driver_id: str) -> None:
        self._driver_id = spreadsheet_safe(driver_id)
        self._jumps = Jumps()

    def head(self) -> str:
        return _line(CSV_COLUMNS)

    def page(self, spots: Sequence[Position]) -> str:
        return "".join(self._fix(spot) for spot in spots)

    def foot(self) -> str:
        return ""

    def _fix(self, spot: Position) -> str:
        return _line(
            [
                self._driver_id,
                format_instant(spot.fix_at),
                format_instant(spot.received_at),
                spot.lon_deg,
                spot.lat_deg,
                spot.accuracy_m,
                spot.speed_mps,
                spot.heading_deg,
                str(self._jumps.is_jump(spot)).lower(),
            ]
        )


class GeoJsonWriter:
    """A FeatureCollection of points, as in an order's history; those that jump are flagged."""

    def __init__(self, driver_id: str) -> None:
        self._driver_id = driver_id
        self._jumps = Jumps()
        self._before = ""

    def head(self) -> str:
        driver_id = json.dumps(self._driver_id)
        return f'{{"type":"FeatureCollection","driver_id":{driver_id},"features":['

    def page(self, spots: Sequence[Position]) -> str:
        features = []
        for spot in spots:
            feature = point_feature(spot, self._jumps.is_jump(spot))
            features.append(self._before + json.dumps(feature, separators=(",", ":")))
            self._before = ",\n"
        return "".join(features)

    def foot(self) -> str:
        return "]}\n"


class GpxWriter:
    """A GPX 1.1 track without the jumps, in a new segment after each silence."""

    def __init__(self, driver_id: str) -> None:
        self._driver_id = driver_id
        self._jumps = Jumps()
        self._last_at: datetime | None = None

    def head(self) -> str:
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<gpx version="1.1" creator="Doorstep" xmlns="http://www.topografix.com/GPX/1/1">\n'
            f"<trk><name>{escape(self._driver_id)}</name>\n"
        )

    def page(self, spots: Sequence[Position]) -> str:
        return "".join(self._fix(spot) for spot in spots if not self._jumps.is_jump(spot))

    def foot(self) -> str:
        return ("</trkseg>" if self._last_at else "") + "</trk>\n</gpx>\n"

    def _fix(self, spot: Position) -> str:
        begin = "<trkseg>\n" if self._last_at is None else ""
        if self._last_at is not None and spot.fix_at - self._last_at > NEW_SEGMENT_AFTER:
            begin = "</trkseg>\n<trkseg>\n"
        self._last_at = spot.fix_at
        place = f'lat="{spot.lat_deg!r}" lon="{spot.lon_deg!r}"'
        return f"{begin}<trkpt {place}><time>{format_instant(spot.fix_at)}</time></trkpt>\n"


WRITERS: dict[Kind, type[CsvWriter] | type[GeoJsonWriter] | type[GpxWriter]] = {
    "gpx": GpxWriter,
    "geojson": GeoJsonWriter,
    "csv": CsvWriter,
}


def spreadsheet_safe(text: str) -> str:
    """A text that a spreadsheet shows and doesn't run."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _line(values: Sequence[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(values)
    return buffer.getvalue()
