"""GPX 1.0 and 1.1, through gpxpy.

gpxpy refuses a file for one bad point, and for an undeclared prefix. So a recovering parser reads
the file, and gpxpy gets the points, without what it would refuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

import gpxpy
import gpxpy.gpx

from simulators.tracks.fields import FieldNames
from simulators.tracks.points import (
    BAD_POSITION,
    CHUNK,
    CUT,
    NO_POSITION,
    NO_TIME,
    Skipped,
    TrackPoint,
    make_point,
    parse_each,
    read_number,
)
from simulators.tracks.xml_events import BREAKS_OFF, XmlEvent

MAX_LEAVES = 64  # elements kept of one point


@dataclass(slots=True)
class _RawPoint:
    number: int
    attributes: dict[str, str]
    leaves: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"track point {self.number:,}"


def read_gpx(events: Iterator[XmlEvent], names: FieldNames) -> Iterator[TrackPoint | Skipped]:
    """Read the track points. Waypoints and routes have no times, and are left out."""
    chunk: list[_RawPoint] = []
    point: _RawPoint | None = None
    count = 0
    for event in events:
        if event.name == "trkpt":
            if event.is_start:
                count += 1
                point = _RawPoint(count, event.attributes)
            elif point is not None:
                chunk.append(point)
                point = None
                if len(chunk) == CHUNK:
                    yield from _parse(chunk, names)
                    chunk = []
        elif event.name == BREAKS_OFF:
            yield Skipped(CUT, f"after track point {count:,}")
        elif point is not None and event.text and len(point.leaves) < MAX_LEAVES:
            point.leaves.setdefault(event.name, event.text)
    yield from _parse(chunk, names)


def _parse(chunk: list[_RawPoint], names: FieldNames) -> Iterator[TrackPoint | Skipped]:
    def parse(points: Sequence[_RawPoint]) -> list[TrackPoint | Skipped]:
        return _parse_points(points, names)

    def skip(point: _RawPoint) -> Skipped:
        has_place = point.attributes.get("lat") and point.attributes.get("lon")
        return Skipped(BAD_POSITION if has_place else NO_POSITION, point.where)

    dated = [point for point in chunk if point.leaves.get("time")]
    yield from (Skipped(NO_TIME, one.where) for one in chunk if not one.leaves.get("time"))
    yield from parse_each(dated, parse, skip, (gpxpy.gpx.GPXException, ValueError))


def _parse_points(points: Sequence[_RawPoint], names: FieldNames) -> list[TrackPoint | Skipped]:
    document = "".join(map(_clean_xml, points))
    parsed = gpxpy.parse(
        f'<gpx version="1.1" creator="doorstep"><trk><trkseg>{document}</trkseg></trk></gpx>'
    )
    found = []
    for raw, point in zip(points, parsed.tracks[0].segments[0].points, strict=True):
        fields = {
            **names.read_optional(raw.leaves),
            "at": point.time or raw.leaves["time"],
            "lat_deg": point.latitude,
            "lon_deg": point.longitude,
        }
        if point.elevation is not None:
            fields["altitude_m"] = point.elevation
        found.append(make_point(fields, raw.where))
    return found


def _clean_xml(point: _RawPoint) -> str:
    lat, lon = (quoteattr(point.attributes.get(name, "")) for name in ("lat", "lon"))
    ele = point.leaves.get("ele", "")
    elevation = f"<ele>{escape(ele)}</ele>" if read_number(ele) is not None else ""
    return (
        f"<trkpt lat={lat} lon={lon}>{elevation}<time>{escape(point.leaves['time'])}</time></trkpt>"
    )
