"""KML through fastkml: `gx:Track`, and placemarks that have a `TimeStamp` and a `Point`.

A line without times is no track. fastkml pairs times and places by their order, and would shift all
that follow an unreadable one. So the pairs are made here, and fastkml reads each pair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fastkml import config
from fastkml.exceptions import KMLParseError
from fastkml.gx.track import Track
from lxml import etree

from simulators.tracks.fields import FieldNames
from simulators.tracks.points import (
    BAD_POSITION,
    BAD_TIME,
    CUT,
    NO_POSITION,
    NO_TIME,
    Skipped,
    TrackPoint,
    UnreadableTrack,
    make_point,
    parse_each,
    parse_instant,
)
from simulators.tracks.xml_events import BREAKS_OFF, XmlEvent

MAX_PAIRS = 1_000_000  # in one gx:Track
NAME_SPACES = {"kml": config.KMLNS, "gx": config.GXNS}
HEADING_FIRST = 0  # gx:angles are heading, tilt, roll


@dataclass(frozen=True, slots=True)
class _Pair:
    where: str
    when: str
    coord: str
    extras: Mapping[str, object]


@dataclass(slots=True)
class _RawTrack:
    """What one gx:Track holds. The lists correspond by their index."""

    whens: list[str] = field(default_factory=list)
    coords: list[str] = field(default_factory=list)
    angles: list[str] = field(default_factory=list)
    arrays: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def pairs(self, number: int) -> Iterator[_Pair]:
        """Pair times and places. A missing one is empty."""
        for index in range(max(len(self.whens), len(self.coords))):
            extras: dict[str, object] = {
                name: values[index] for name, values in self.arrays.items() if index < len(values)
            }
            angles = _at(self.angles, index).split()
            if angles:
                extras["heading"] = angles[HEADING_FIRST]
            where = f"track {number}, point {index + 1:,}"
            yield _Pair(where, _at(self.whens, index), _at(self.coords, index), extras)


def read_kml(events: Iterator[XmlEvent], names: FieldNames) -> Iterator[TrackPoint | Skipped]:
    """Read all tracks, then the dated placemarks."""
    tracks = 0
    track: _RawTrack | None = None
    placemarks: list[_Pair] = []
    number = 0
    placemark: dict[str, str] = {}
    array = ""
    for event in events:
        if event.name == "Track":
            if event.is_start:
                tracks += 1
                track = _RawTrack()
            elif track is not None:
                yield from _parse(list(track.pairs(tracks)), names)
                track = None
        elif event.name == BREAKS_OFF:
            if track is not None:  # the points before the damage
                yield from _parse(list(track.pairs(tracks)), names)
            yield Skipped(CUT, f"in track {tracks}" if track is not None else "")
        elif track is not None:
            if event.name == "SimpleArrayData":
                array = event.attributes.get("name", "") if event.is_start else ""
            elif not event.is_start:
                _collect(track, array, event)
        elif event.name == "Placemark":
            if not event.is_start and "coordinates" in placemark:
                number += 1
                placemarks.append(_pair_of_placemark(number, placemark))
                if len(placemarks) > MAX_PAIRS:
                    raise UnreadableTrack(f"more than {MAX_PAIRS:,} placemarks")
            placemark = {}
        elif event.name in ("when", "coordinates") and not event.is_start:
            placemark.setdefault(event.name, event.text)
    yield from _parse(placemarks, names)


def _collect(track: _RawTrack, array: str, event: XmlEvent) -> None:
    target = {"when": track.whens, "coord": track.coords, "angles": track.angles}.get(event.name)
    if event.name == "value" and array:
        target = track.arrays[array]
    if target is None:
        return
    target.append(event.text)
    if len(target) > MAX_PAIRS:
        raise UnreadableTrack(f"more than {MAX_PAIRS:,} points in one gx:Track")


def _pair_of_placemark(number: int, placemark: Mapping[str, str]) -> _Pair:
    coord = placemark["coordinates"].split()
    # a line has no place of its own: (longitude, latitude[, altitude]) only
    place = coord[0].replace(",", " ") if len(coord) == 1 else ""
    return _Pair(f"placemark {number:,}", placemark.get("when", ""), place, {})


def _parse(pairs: Sequence[_Pair], names: FieldNames) -> Iterator[TrackPoint | Skipped]:
    def parse(chunk: Sequence[_Pair]) -> list[TrackPoint | Skipped]:
        return _parse_pairs(chunk, names)

    complete = []
    for pair in pairs:
        if not pair.when:
            yield Skipped(NO_TIME, pair.where)
        elif not pair.coord:
            yield Skipped(NO_POSITION, pair.where)
        else:
            complete.append(pair)
    yield from parse_each(complete, parse, _skip, (KMLParseError, TypeError, ValueError))


def _skip(pair: _Pair) -> Skipped:
    try:
        parse_instant(pair.when)
    except ValueError:
        return Skipped(BAD_TIME, f"{pair.where}: {pair.when[:40]!r}")
    return Skipped(BAD_POSITION, pair.where)


def _parse_pairs(pairs: Sequence[_Pair], names: FieldNames) -> list[TrackPoint | Skipped]:
    element = etree.Element(f"{config.GXNS}Track")
    for pair in pairs:
        etree.SubElement(element, f"{config.KMLNS}when").text = pair.when
    for pair in pairs:
        etree.SubElement(element, f"{config.GXNS}coord").text = pair.coord
    track = Track.class_from_element(
        ns=config.GXNS, name_spaces=NAME_SPACES, element=element, strict=True
    )
    found: list[TrackPoint | Skipped] = []
    for pair, item in zip(pairs, track.track_items, strict=True):
        if not isinstance(item.when.dt, datetime):  # a day or a year is no instant
            found.append(Skipped(BAD_TIME, f"{pair.where}: {pair.when[:40]!r}"))
            continue
        places: Sequence[Sequence[float]] = item.coord.coords
        place = places[0]
        fields = {
            **names.read_optional(pair.extras),
            "at": item.when.dt,
            "lat_deg": place[1],
            "lon_deg": place[0],
        }
        if place[2:] and place[2]:  # writers put 0 there if they have no altitude
            fields["altitude_m"] = place[2]
        found.append(make_point(fields, pair.where))
    return found


def _at(values: Sequence[str], index: int) -> str:
    return values[index] if index < len(values) else ""
