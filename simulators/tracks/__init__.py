"""Reads recorded tracks as a list of points in time order.

reading      opens a file, finds its format by the content, and counts what is skipped
points       a point of a track, and the reasons to skip one
fields       names and units of fields in CSV columns, GeoJSON properties, extensions
jumps        points that are weeks away from the rest of the track
sources      bounded reading: sizes, lines, archives
xml_events   XML from strangers as a stream of elements

One module per format: gpx, kml, timeline, geojson, fit, nmea, csv_rows.
"""

from simulators.tracks.fields import SPEED_UNITS, FieldNames, parse_column
from simulators.tracks.points import Skipped, TrackPoint, UnreadableTrack, parse_instant
from simulators.tracks.reading import Recording, read_recording, read_track

__all__ = [
    "SPEED_UNITS",
    "FieldNames",
    "Recording",
    "Skipped",
    "TrackPoint",
    "UnreadableTrack",
    "parse_column",
    "parse_instant",
    "read_recording",
    "read_track",
]
