"""Small tracks, one of each format: three points in Florence, 4 s apart, from START_S on.

Each has the same places; what else it has depends on the format.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import reduce
from operator import xor
from pathlib import Path

START_S = 1_714_557_600  # 2024-05-01 10:00:00 UTC
PLACES = [(43.7700, 11.2500), (43.7701, 11.2502), (43.7702, 11.2504)]
TIMES = ["2024-05-01T10:00:00Z", "2024-05-01T10:00:04Z", "2024-05-01T10:00:08Z"]
ROWS = [(time, lat, lon) for time, (lat, lon) in zip(TIMES, PLACES, strict=True)]
FIT_EPOCH_S = 631_065_600  # 1989-12-31


def write(folder: Path, name: str, content: bytes | str) -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def gpx(points: str | None = None) -> str:
    made = "".join(
        f'<trkpt lat="{lat}" lon="{lon}"><ele>50</ele><time>{time}</time></trkpt>'
        for time, lat, lon in ROWS
    )
    return (
        '<?xml version="1.0"?><gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1">'
        f"<trk><trkseg>{made if points is None else points}</trkseg></trk></gpx>"
    )


def kml(track: str | None = None) -> str:
    whens = "".join(f"<when>{time}</when>" for time in TIMES)
    coords = "".join(f"<gx:coord>{lon} {lat} 50</gx:coord>" for lat, lon in PLACES)
    angles = "<gx:angles>90 0 0</gx:angles>" * 3
    speeds = "".join(f"<gx:value>{speed}</gx:value>" for speed in (1, 2, 3))
    data = (
        '<ExtendedData><SchemaData schemaUrl="#s"><gx:SimpleArrayData name="speed">'
        f"{speeds}</gx:SimpleArrayData></SchemaData></ExtendedData>"
    )
    return (
        '<?xml version="1.0"?><kml xmlns="http://www.opengis.net/kml/2.2" '
        'xmlns:gx="http://www.google.com/kml/ext/2.2"><Document><Placemark><gx:Track>'
        f"{whens + coords + angles + data if track is None else track}"
        "</gx:Track></Placemark></Document></kml>"
    )


def placemarks() -> str:
    made = "".join(
        f"<Placemark><TimeStamp><when>{time}</when></TimeStamp>"
        f"<Point><coordinates>{lon},{lat},50</coordinates></Point></Placemark>"
        for time, lat, lon in ROWS
    )
    return f'<kml xmlns="http://www.opengis.net/kml/2.2"><Document>{made}</Document></kml>'


def android_timeline() -> str:
    path = [{"point": f"{lat}°, {lon}°", "time": time} for time, lat, lon in ROWS[:2]]
    time, lat, lon = ROWS[2]
    position = {
        "LatLng": f"{lat}°, {lon}°",
        "accuracyMeters": 12,
        "altitudeMeters": 50.5,
        "source": "GPS",
        "timestamp": time,
        "speedMetersPerSecond": 3.5,
    }
    export = {
        "semanticSegments": [
            {"startTime": TIMES[0], "endTime": TIMES[2], "timelinePath": path},
            {"startTime": TIMES[0], "endTime": TIMES[2], "visit": {"probability": 0.5}},
        ],
        "rawSignals": [{"position": position}, {"wifiScan": {"deliveryTime": TIMES[0]}}],
        "userLocationProfile": {"frequentPlaces": []},
    }
    return json.dumps(export, ensure_ascii=False)


def ios_timeline() -> str:
    path = [
        {"point": f"geo:{lat},{lon}", "durationMinutesOffsetFromStartTime": str(minutes)}
        for minutes, (lat, lon) in enumerate(PLACES)
    ]
    segments = [
        {"startTime": "2024-05-01T12:00:00.000+02:00", "endTime": TIMES[2], "timelinePath": path},
        {"startTime": TIMES[0], "endTime": TIMES[2], "activity": {"start": "geo:1,1"}},
    ]
    return json.dumps(segments)


def geojson() -> str:
    line = {
        "type": "Feature",
        "geometry": {"type": "LineString", "coordinates": [[lon, lat] for lat, lon in PLACES]},
        "properties": {"coordTimes": TIMES},
    }
    return json.dumps({"type": "FeatureCollection", "features": [line]})


def sentence(body: str) -> str:
    return f"${body}*{reduce(xor, body.encode(), 0):02X}"


def nmea_place(lat_deg: float, lon_deg: float) -> str:
    (lat, lat_min), (lon, lon_min) = (divmod(value * 60, 60) for value in (lat_deg, lon_deg))
    return f"{lat:02.0f}{lat_min:08.5f},N,{lon:03.0f}{lon_min:08.5f},E"


def nmea() -> str:
    lines = []
    for index, place in enumerate(PLACES):
        clock = f"1000{4 * index:02}.00"
        at = nmea_place(*place)
        lines.append(sentence(f"GPGGA,{clock},{at},1,08,0.9,50.5,M,45.0,M,,"))
        lines.append(sentence(f"GPRMC,{clock},A,{at},10.0,90.0,010524,,,A"))
    return "\r\n".join([sentence("GPGSV,1,1,00"), *lines]) + "\r\n"


def csv_rows(head: str = "time,lat,lon") -> str:
    return "\n".join([head, *(f"{time},{lat},{lon}" for time, lat, lon in ROWS)]) + "\n"


def fit(records: Sequence[tuple[int, int, int]] | None = None) -> bytes:
    """Return a FIT file of (FIT timestamp, latitude, longitude in semicircles)."""
    if records is None:
        records = [
            (START_S - FIT_EPOCH_S + 4 * index, round(lat * 2**31 / 180), round(lon * 2**31 / 180))
            for index, (lat, lon) in enumerate(PLACES)
        ]
    fields = [(253, 4, 0x86), (0, 4, 0x85), (1, 4, 0x85), (2, 2, 0x84), (6, 2, 0x84), (31, 1, 2)]
    definition = struct.pack("<BBBHB", 0x40, 0, 0, 20, len(fields))
    definition += b"".join(struct.pack("<BBB", *field) for field in fields)
    data = b"".join(
        b"\x00" + struct.pack("<IiiHHB", at, lat, lon, (50 + 500) * 5, 3500, 7)
        for at, lat, lon in records
    )
    body = definition + data
    return struct.pack("<BBHI4sH", 14, 0x10, 2068, len(body), b".FIT", 0) + body + b"\x00\x00"


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def instant_of(index: int, step_s: float = 4) -> datetime:
    return datetime.fromtimestamp(START_S + step_s * index, UTC)


FILES: dict[str, bytes] = {
    "track.gpx": gpx().encode(),
    "track.kml": kml().encode(),
    "track.kmz": zipped("doc.kml", kml().encode()),
    "placemarks.kml": placemarks().encode(),
    "Timeline.json": android_timeline().encode(),
    "location-history.json": ios_timeline().encode(),
    "track.geojson": geojson().encode(),
    "track.fit": fit(),
    "track.nmea": nmea().encode(),
    "track.csv": csv_rows().encode(),
    "track.csv.gz": gzip.compress(csv_rows().encode(), mtime=0),
}
