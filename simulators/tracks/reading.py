"""Opens track files, finds their format by the content, and counts what is skipped."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path

from simulators.tracks.fields import FieldNames
from simulators.tracks.jumps import leave_out_jumps
from simulators.tracks.points import Skipped, TrackPoint, UnreadableTrack
from simulators.tracks.sources import CHUNK_BYTES, open_track, read_lines

FORMATS = "GPX, KML, Google Timeline, GeoJSON, FIT, NMEA or CSV"
NO_TRACK = f"not a {FORMATS} track"
MAX_POINTS = 500_000
FIT_MARK = b".FIT"  # after 8 bytes of the header
BEFORE = "before --from"
AFTER = "after --to"

Items = Iterator[TrackPoint | Skipped]


@dataclass(slots=True)
class Recording:
    """Points in time order, and what was left out of the files."""

    points: list[TrackPoint] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)  # where each reason was met first
    formats: list[str] = field(default_factory=list)
    jumps: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Describe how many points were read, and what was skipped and why."""
        skipped = f", {self.skipped.total():,} skipped" if self.skipped else ""
        read = f"{len(self.points):,} points read from {', '.join(self.formats)}{skipped}"
        reasons = [
            f"  {count:>9,} {reason} (first: {self.first[reason]})"
            for reason, count in self.skipped.most_common()
        ]
        return [read, *reasons, *(f"  {jump}" for jump in self.jumps)]

    def add(self, item: TrackPoint | Skipped, prefix: str) -> None:
        """Add a point, or count why it is left out. Raises UnreadableTrack beyond MAX_POINTS."""
        if isinstance(item, Skipped):
            self.skipped[item.reason] += 1
            self.first.setdefault(item.reason, prefix + item.where)
            return
        self.points.append(item)
        if len(self.points) > MAX_POINTS:
            raise UnreadableTrack(
                f"more than {MAX_POINTS:,} points: choose a time with --from and --to"
            )


def read_recording(
    paths: Iterable[Path],
    names: FieldNames | None = None,
    from_at: datetime | None = None,
    to_at: datetime | None = None,
) -> Recording:
    """Read files as one track, without jumps of weeks. Raises UnreadableTrack."""
    recording = Recording()
    files = list(paths)
    for path in files:
        prefix = f"{path.name}, " if len(files) > 1 else ""
        _read_file(path, recording, names or FieldNames(), prefix, (from_at, to_at))
    if not recording.points:
        raise UnreadableTrack("; ".join(["the track has no usable point", *_reasons(recording)]))
    recording.points.sort(key=lambda point: point.at)
    recording.points, recording.jumps = leave_out_jumps(recording.points)
    return recording


def read_track(path: Path) -> list[TrackPoint]:
    """Read one file, with its points in the file's order. Raises UnreadableTrack."""
    recording = Recording()
    _read_file(path, recording, FieldNames(), "", (None, None))
    return recording.points


def _reasons(recording: Recording) -> list[str]:
    return [line.strip() for line in recording.lines()[1:]]


def _read_file(
    path: Path,
    recording: Recording,
    names: FieldNames,
    prefix: str,
    between: tuple[datetime | None, datetime | None],
) -> None:
    try:
        with open_track(path) as stream:
            name, items = _open_format(stream, names)
            if name not in recording.formats:
                recording.formats.append(name)
            for item in items:
                recording.add(_within(item, *between), prefix)
    except UnreadableTrack as exc:
        raise UnreadableTrack(f"{path}: {exc}") from exc
    except OSError as exc:
        raise UnreadableTrack(f"{path}: {exc.strerror or exc}") from exc


def _within(
    item: TrackPoint | Skipped, from_at: datetime | None, to_at: datetime | None
) -> TrackPoint | Skipped:
    if isinstance(item, TrackPoint):
        if from_at is not None and item.at < from_at:
            return Skipped(BEFORE, f"{item.at:%Y-%m-%d %H:%M:%S}")
        if to_at is not None and item.at >= to_at:
            return Skipped(AFTER, f"{item.at:%Y-%m-%d %H:%M:%S}")
    return item


def _open_format(stream: io.BufferedReader, names: FieldNames) -> tuple[str, Items]:
    """Return the format's name and its items. Parsers are imported when they are needed."""
    head = stream.peek(CHUNK_BYTES)[:CHUNK_BYTES]
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[8:12] == FIT_MARK:
        from simulators.tracks.fit import read_fit

        return "FIT", read_fit(stream)
    if not text:
        raise UnreadableTrack("the file is empty")
    if text.startswith((b"<", b"\xff\xfe<", b"\xfe\xff\x00<")):
        return _open_xml(stream, names)
    if b"\x00" in head:
        raise UnreadableTrack(NO_TRACK)
    if text.startswith((b"{", b"[")):
        return _open_json(stream, names)
    if _is_nmea(text):
        from simulators.tracks.nmea import read_nmea

        return "NMEA", read_nmea(read_lines(stream))
    from simulators.tracks.csv_rows import NoTable, read_csv

    items = read_csv(read_lines(stream), names)
    try:
        return "CSV", chain([first] if (first := next(items, None)) else [], items)
    except NoTable as exc:
        raise UnreadableTrack(NO_TRACK) from exc


def _open_xml(stream: io.BufferedReader, names: FieldNames) -> tuple[str, Items]:
    from simulators.tracks.xml_events import read_events

    events = read_events(stream)
    root = next(events, None)
    if root is not None and root.name == "gpx":
        from simulators.tracks.gpx import read_gpx

        return "GPX", read_gpx(events, names)
    if root is not None and root.name == "kml":
        from simulators.tracks.kml import read_kml

        return "KML", read_kml(events, names)
    raise UnreadableTrack(f"{NO_TRACK}: the XML root is {root.name}" if root else NO_TRACK)


def _open_json(stream: io.BufferedReader, names: FieldNames) -> tuple[str, Items]:
    from simulators.tracks.json_track import read_json

    try:
        return read_json(stream, names)
    except UnreadableTrack as exc:
        raise UnreadableTrack(f"{NO_TRACK}: {exc}") from exc


def _is_nmea(text: bytes) -> bool:
    from simulators.tracks.nmea import SENTENCES

    lines = text[:4096].upper().splitlines()
    marks = tuple(name.encode() for name in SENTENCES)
    return any(line[at + 3 : at + 6] in marks for line in lines if (at := line.find(b"$")) >= 0)
