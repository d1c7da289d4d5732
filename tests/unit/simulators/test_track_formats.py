"""Each format of tracks: what is read of a good file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulators.tracks import FieldNames, TrackPoint, read_recording, read_track
from tests import track_files
from tests.track_files import FILES, PLACES, instant_of


def read(folder: Path, name: str, content: bytes | str) -> list[TrackPoint]:
    return read_track(track_files.write(folder, name, content))


@pytest.mark.parametrize("name", FILES)
def test_read_track__each_format__has_the_same_places_and_times(tmp_path: Path, name: str) -> None:
    points = read(tmp_path, name, FILES[name])
    places = [(point.values["lat_deg"], point.values["lon_deg"]) for point in points]
    assert places == [pytest.approx(place, abs=1e-7) for place in PLACES]
    step_s = 60 if name == "location-history.json" else 4  # iOS counts minutes
    assert [point.at for point in points] == [instant_of(index, step_s) for index in range(3)]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("track.gpx", {"altitude_m": 50}),
        ("track.kml", {"altitude_m": 50, "heading_deg": 90, "speed_mps": 3}),
        ("Timeline.json", {"accuracy_m": 12, "altitude_m": 50.5, "speed_mps": 3.5}),
        ("track.fit", {"accuracy_m": 7, "altitude_m": 50, "speed_mps": 3.5}),
        ("track.nmea", {"altitude_m": 50.5, "heading_deg": 90, "speed_mps": 5.144444}),
    ],
)
def test_read_track__each_format__has_its_optional_fields_in_metres_and_seconds(
    tmp_path: Path, name: str, values: dict[str, float]
) -> None:
    last = read(tmp_path, name, FILES[name])[-1]
    optional = {key: last.values[key] for key in last.values if key not in ("lat_deg", "lon_deg")}
    assert optional == pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_read_track__name_without_a_suffix__is_found_by_the_content(
    tmp_path: Path, name: str
) -> None:
    assert len(read(tmp_path, "track", FILES[name])) == 3


def test_read_track__gpx_with_an_undeclared_prefix__reads_its_extensions(tmp_path: Path) -> None:
    extension = (
        "<extensions><gpxtpx:TrackPointExtension><gpxtpx:speed>4.5</gpxtpx:speed>"
        "<gpxtpx:course>360</gpxtpx:course></gpxtpx:TrackPointExtension></extensions>"
    )
    time = "<time>2024-05-01T10:00:00Z</time>"
    (point,) = read(
        tmp_path,
        "t.gpx",
        track_files.gpx(f'<trkpt lat="43" lon="11">{time}{extension}</trkpt>'),
    )
    assert point.values == {"lat_deg": 43, "lon_deg": 11, "speed_mps": 4.5, "heading_deg": 0}


def test_read_track__gpx_in_utf_16__is_read(tmp_path: Path) -> None:
    document = track_files.gpx().replace('version="1.0"', 'version="1.0" encoding="UTF-16"', 1)
    assert len(read(tmp_path, "t.gpx", document.encode("utf-16"))) == 3


def test_read_track__kml_times_and_places_interleaved__are_paired(tmp_path: Path) -> None:
    pairs = "".join(
        f"<when>{time}</when><gx:coord>{lon} {lat}</gx:coord>"
        for time, lat, lon in track_files.ROWS
    )
    points = read(tmp_path, "t.kml", track_files.kml(pairs))
    assert [point.values["lat_deg"] for point in points] == [lat for lat, _ in PLACES]


@pytest.mark.parametrize("offset", ["2", 2, 2.0])
def test_read_track__android_path_with_minutes__counts_from_the_segment(
    tmp_path: Path, offset: object
) -> None:
    step = {"point": "43.77°, 11.25°", "durationMinutesOffsetFromStartTime": offset}
    segment = {"startTime": "2024-05-01T10:00:00Z", "timelinePath": [step]}
    (point,) = read(tmp_path, "t.json", json.dumps({"semanticSegments": [segment]}))
    assert point.at == instant_of(120, 1)


def test_read_track__nmea_without_rmc__takes_the_date_of_zda_over_midnight(tmp_path: Path) -> None:
    place = track_files.nmea_place(43.77, 11.25)
    lines = [
        track_files.sentence("GPZDA,235959.00,30,04,2024,00,00"),
        track_files.sentence(f"GNGGA,235959.00,{place},1,08,0.9,50.5,M,45.0,M,,"),
        track_files.sentence(f"GNGGA,000001.00,{place},1,08,0.9,50.5,M,45.0,M,,"),
    ]
    points = read(tmp_path, "t.nmea", "\n".join(lines))
    assert [f"{point.at:%d %H:%M:%S}" for point in points] == ["30 23:59:59", "01 00:00:01"]


def test_read_track__nmea_with_a_logger_s_prefix__is_read(tmp_path: Path) -> None:
    lines = [f"NMEA 1714557600123 {line}" for line in track_files.nmea().splitlines()]
    assert len(read(tmp_path, "t.txt", "\n".join(lines))) == 3


@pytest.mark.parametrize(
    "head",
    [
        "tracked_at,lat,lon",
        "TrackedAt,Latitude,Longitude",
        "recorded_at,gps_lat,gps_lng",
        "Time (UTC),Lat (°),Lon (°)",
        "utc_time,y,x",
    ],
)
def test_read_track__csv_of_known_names__needs_no_option(tmp_path: Path, head: str) -> None:
    assert len(read(tmp_path, "t.csv", track_files.csv_rows(head))) == 3


@pytest.mark.parametrize(
    ("column", "value", "field", "expected"),
    [
        ("speed", "36", "speed_mps", 36),
        ("speed_mps", "36", "speed_mps", 36),
        ("speed_kmh", "36", "speed_mps", 10),
        ("Speed (km/h)", "36", "speed_mps", 10),
        ("speedKph", "36", "speed_mps", 10),
        ("speed_mph", "10", "speed_mps", 4.4704),
        ("speed_kn", "10", "speed_mps", 5.144444),
        ("Speed [knots]", "10", "speed_mps", 5.144444),
        ("altitude_ft", "100", "altitude_m", 30.48),
        ("battery (%)", "87", "battery", 0.87),
    ],
)
def test_read_track__unit_in_the_header__is_converted(
    tmp_path: Path, column: str, value: str, field: str, expected: float
) -> None:
    table = f"time,lat,lon,{column}\n2024-05-01T10:00:00Z,43,11,{value}\n"
    (point,) = read(tmp_path, "t.csv", table)
    assert point.values[field] == pytest.approx(expected, abs=1e-5)


def test_read_track__csv_with_decimal_commas__is_read(tmp_path: Path) -> None:
    (point,) = read(tmp_path, "t.csv", "time;lat;lon\n2024-05-01T10:00:00Z;43,77;11,25\n")
    assert point.values == {"lat_deg": 43.77, "lon_deg": 11.25}


@pytest.mark.parametrize(
    ("given", "speed_unit_mps", "head", "speed_mps"),
    [
        ({"at": "seen", "speed_mps": "v"}, 1 / 3.6, "seen,lat,lon,v", 10),
        ({"at": "Seen", "speed_mps": "v kmh"}, 1.0, "seen,lat,lon,v kmh", 10),
        ({"at": "seen", "speed_mps": "gps_kmh"}, 1.0, "seen,lat,lon,gps_kmh", 10),
        ({"at": "seen"}, 1 / 3.6, "seen,lat,lon,speed_mps", 36),
        ({"at": "seen"}, 1 / 3.6, "seen,lat,lon,speed", 10),
    ],
)
def test_read_recording__columns_and_speed_unit_given__are_used(
    tmp_path: Path, given: dict[str, str], speed_unit_mps: float, head: str, speed_mps: float
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{head},time\n2024-05-01T10:00:00Z,43,11,36,2001-01-01T00:00:00Z\n")
    (point,) = read_recording([path], FieldNames(given, speed_unit_mps)).points
    assert point.at == instant_of(0)
    assert point.values["speed_mps"] == pytest.approx(speed_mps)


@pytest.mark.parametrize("name", ["track.fit", "track.nmea", "Timeline.json"])
def test_read_recording__speed_unit_given__leaves_formats_that_define_theirs(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    plain, given = (
        read_recording([tmp_path / name], FieldNames({}, unit)).points for unit in (1.0, 0.5)
    )
    assert plain == given
    assert "speed_mps" in plain[-1].values
