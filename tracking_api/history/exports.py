"""A driver's history as a file: GPX, GeoJSON or CSV, written page by page. Pure.

Each writer has a head, a text per page of fixes, and a foot. Written pages are not kept, so memory
does not grow with the range.
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

ExportKind = Literal["gpx", "geojson", "csv"]
MEDIA_TYPES: dict[ExportKind, str] = {
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
NEW_SEGMENT_AFTER = timedelta(minutes=5)  # a line does not bridge a longer silence
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a formula begins in a spreadsheet


class Writer(Protocol):
    """Writes one file."""

    def head(self) -> str: ...
    def page(self, positions: Sequence[Position]) -> str: ...
    def foot(self) -> str: ...


class CsvWriter:
    """One line per fix. A text that a spreadsheet would run as a formula gets an apostrophe."""

    def __init__(self, driver_id: str) -> None:
        self._driver_id = spreadsheet_safe(driver_id)
        self._jumps = Jumps()

    def head(self) -> str:
        return _line(CSV_COLUMNS)

    def page(self, positions: Sequence[Position]) -> str:
        return "".join(self._fix(position) for position in positions)

    def foot(self) -> str:
        return ""

    def _fix(self, position: Position) -> str:
        return _line(
            [
                self._driver_id,
                format_instant(position.fix_at),
                format_instant(position.received_at),
                position.lon_deg,
                position.lat_deg,
                position.accuracy_m,
                position.speed_mps,
                position.heading_deg,
                str(self._jumps.is_jump(position)).lower(),
            ]
        )


class GeoJsonWriter:
    """A FeatureCollection of points, as in an order's history; jumps are flagged."""

    def __init__(self, driver_id: str) -> None:
        self._driver_id = driver_id
        self._jumps = Jumps()
        self._separator = ""

    def head(self) -> str:
        driver_id = json.dumps(self._driver_id)
        return f'{{"type":"FeatureCollection","driver_id":{driver_id},"features":['

    def page(self, positions: Sequence[Position]) -> str:
        features = []
        for position in positions:
            feature = point_feature(position, self._jumps.is_jump(position))
            features.append(self._separator + json.dumps(feature, separators=(",", ":")))
            self._separator = ",\n"
        return "".join(features)

    def foot(self) -> str:
        return "]}\n"


class GpxWriter:
    """A GPX 1.1 track without the jumps, with a new segment after each silence."""

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

    def page(self, positions: Sequence[Position]) -> str:
        return "".join(
            self._fix(position) for position in positions if not self._jumps.is_jump(position)
        )

    def foot(self) -> str:
        return ("</trkseg>" if self._last_at else "") + "</trk>\n</gpx>\n"

    def _fix(self, position: Position) -> str:
        begin = "<trkseg>\n" if self._last_at is None else ""
        if self._last_at is not None and position.fix_at - self._last_at > NEW_SEGMENT_AFTER:
            begin = "</trkseg>\n<trkseg>\n"
        self._last_at = position.fix_at
        place = f'lat="{position.lat_deg!r}" lon="{position.lon_deg!r}"'
        return f"{begin}<trkpt {place}><time>{format_instant(position.fix_at)}</time></trkpt>\n"


WRITERS: dict[ExportKind, type[CsvWriter] | type[GeoJsonWriter] | type[GpxWriter]] = {
    "gpx": GpxWriter,
    "geojson": GeoJsonWriter,
    "csv": CsvWriter,
}


def spreadsheet_safe(text: str) -> str:
    """Return a text that a spreadsheet does not run as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _line(values: Sequence[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(values)
    return buffer.getvalue()
