"""Bad points cost themselves, never the file."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from simulators.tracks import (
    FieldNames,
    Recording,
    TrackPoint,
    UnreadableTrack,
    parse_column,
    parse_instant,
    read_recording,
    reading,
)
from simulators.tracks.jumps import leave_out_jumps
from tests import track_files
from tests.track_files import FILES, ROWS, instant_of

GOOD = '<trkpt lat="43" lon="11"><time>2024-05-01T10:00:00Z</time></trkpt>'


def read(folder: Path, name: str, content: bytes | str) -> Recording:
    return read_recording([track_files.write(folder, name, content)])


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ('<trkpt lat="43" lon="11"/>', "without a time"),
        ('<trkpt lat="43" lon="11"><time/></trkpt>', "without a time"),
        ('<trkpt lat="43" lon="11"><time>noon</time></trkpt>', "time not readable"),
        ('<trkpt lon="11"><time>2024-05-01T10:00:00Z</time></trkpt>', "without a position"),
        ('<trkpt lat="x" lon="1"><time>2024-05-01T10:00:00Z</time></trkpt>', "position not read"),
        ('<trkpt lat="nan" lon="1"><time>2024-05-01T10:00:00Z</time></trkpt>', "position not"),
        ('<trkpt lat="91" lon="1"><time>2024-05-01T10:00:00Z</time></trkpt>', "outside the globe"),
    ],
)
def test_gpx__bad_point__is_skipped_and_counted(tmp_path: Path, point: str, reason: str) -> None:
    found = read(tmp_path, "t.gpx", track_files.gpx(GOOD + point + GOOD))
    assert len(found.points) == 2
    ((skipped, count),) = found.skipped.items()
    assert reason in skipped
    assert count == 1
    assert found.lines()[0] == "2 points read from GPX, 1 skipped"
    assert "first: track point 2" in found.lines()[1]


def test_gpx__bad_elevation__keeps_the_point(tmp_path: Path) -> None:
    document = track_files.gpx(GOOD.replace("<time>", "<ele>high</ele><time>"))
    (point,) = read(tmp_path, "t.gpx", document).points
    assert point.values == {"lat_deg": 43, "lon_deg": 11}


@pytest.mark.parametrize("length", [250, 300, 330, 359])
def test_gpx__cut_file__keeps_the_whole_points(tmp_path: Path, length: int) -> None:
    document = track_files.gpx()[:length]
    whole = document.count("</trkpt>")
    found = read(tmp_path, "t.gpx", document)
    assert [point.at for point in found.points] == [instant_of(index) for index in range(whole)]
    assert found.skipped == Counter({"the rest of the file is not readable": 1})


@pytest.mark.parametrize(
    ("track", "good", "reason"),
    [
        ("<when>noon</when><when>{1}</when><gx:coord>1 2</gx:coord>" + "<gx:coord>3 4</gx:coord>",
         (4, 3), "time not readable"),
        ("<when>2024</when><when>{1}</when><gx:coord>1 2</gx:coord>" + "<gx:coord>3 4</gx:coord>",
         (4, 3), "time not readable"),
        ("<when/><gx:coord>1 2</gx:coord><when>{1}</when><gx:coord>3 4</gx:coord>",
         (4, 3), "without a time"),
        ("<when>{0}</when><when>{1}</when><gx:coord/><gx:coord>3 4</gx:coord>",
         (4, 3), "without a position"),
        ("<when>{0}</when><when>{1}</when><gx:coord>x 2</gx:coord><gx:coord>3 4</gx:coord>",
         (4, 3), "position not readable"),
        ("<when>{0}</when><when>{1}</when><gx:coord>1</gx:coord><gx:coord>3 4</gx:coord>",
         (4, 3), "position not readable"),
        ("<when>{1}</when><gx:coord>3 4</gx:coord><gx:coord>5 6</gx:coord>",
         (4, 3), "without a time"),
    ],
)  # fmt: skip
def test_kml__bad_pair__shifts_no_other(
    tmp_path: Path, track: str, good: tuple[float, float], reason: str
) -> None:
    document = track_files.kml(track.format(*track_files.TIMES))
    found = read(tmp_path, "t.kml", document)
    (point,) = found.points
    assert (point.values["lat_deg"], point.values["lon_deg"]) == good
    assert point.at == instant_of(1)
    assert found.skipped == Counter({reason: 1})


def test_kml__line_without_times__is_counted(tmp_path: Path) -> None:
    line = "<Placemark><LineString><coordinates>1,2 3,4</coordinates></LineString></Placemark>"
    document = track_files.kml().replace("<Placemark>", line + "<Placemark>", 1)
    found = read(tmp_path, "t.kml", document)
    assert len(found.points) == 3
    assert found.skipped == Counter({"without a time": 1})


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"point": "43°, 11°"}, "without a time"),
        ({"point": "43°, 11°", "time": "noon"}, "time not readable"),
        ({"time": "2024-05-01T10:00:00Z"}, "without a position"),
        ({"point": "home", "time": "2024-05-01T10:00:00Z"}, "position not readable"),
        ({"point": 7, "time": "2024-05-01T10:00:00Z"}, "position not readable"),
        ({"point": "geo:1,2", "durationMinutesOffsetFromStartTime": "-1"}, "time not readable"),
        ({"point": "geo:1,2", "durationMinutesOffsetFromStartTime": []}, "time not readable"),
        ("point", "segment not readable"),
    ],
)
def test_timeline__bad_step__is_skipped_and_counted(
    tmp_path: Path, step: object, reason: str
) -> None:
    export = json.loads(track_files.android_timeline())
    export["semanticSegments"][0]["timelinePath"].insert(1, step)
    found = read(tmp_path, "t.json", json.dumps(export))
    assert len(found.points) == 3
    assert found.skipped == Counter({reason: 1})


@pytest.mark.parametrize("segment", [None, 7, "x", {"timelinePath": {}}, []])
def test_timeline__bad_segment__is_skipped_and_counted(tmp_path: Path, segment: object) -> None:
    segments = [segment, *json.loads(track_files.ios_timeline())]
    found = read(tmp_path, "t.json", json.dumps(segments))
    assert len(found.points) == 3
    assert found.skipped == Counter({"segment not readable": 1})


@pytest.mark.parametrize("signal", [None, 7, {"position": "here"}])
def test_timeline__bad_signal__is_skipped_and_counted(tmp_path: Path, signal: object) -> None:
    export = json.loads(track_files.android_timeline())
    export["rawSignals"].insert(0, signal)
    found = read(tmp_path, "t.json", json.dumps(export))
    assert len(found.points) == 3
    assert found.skipped == Counter({"raw signal not readable": 1})


@pytest.mark.parametrize(
    ("feature", "reason"),
    [
        (None, "feature not readable"),
        ({"type": "Feature", "geometry": {"type": "Point"}}, "without a time"),
        ({"geometry": {"type": "Point", "coordinates": [1]}, "properties": {"time": 1}},
         "position not readable"),
        ({"geometry": {"type": "LineString", "coordinates": [[1, 2]]}}, "without a time"),
        ({"geometry": {"type": "LineString"}}, "feature not readable"),
        ({"geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {"time": []}},
         "time not readable"),
    ],
)  # fmt: skip
def test_geojson__bad_feature__is_skipped_and_counted(
    tmp_path: Path, feature: object, reason: str
) -> None:
    collection = json.loads(track_files.geojson())
    collection["features"].insert(0, feature)
    found = read(tmp_path, "t.geojson", json.dumps(collection))
    assert len(found.points) == 3
    assert found.skipped == Counter({reason: 1})


def test_geojson__nan_of_python_s_json__is_no_value(tmp_path: Path) -> None:
    feature = {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [11, 43]},
        "properties": {"time": ROWS[0][0], "speed": float("nan")},
    }
    (point,) = read(tmp_path, "t.geojson", json.dumps(feature)).points
    assert point.values == {"lat_deg": 43, "lon_deg": 11}


def test_fit__record_without_a_place_or_a_date__is_skipped_and_counted(tmp_path: Path) -> None:
    at = track_files.START_S - track_files.FIT_EPOCH_S
    no_value = 0x7FFFFFFF
    records = [(at, no_value, no_value), (at, 2**29, 2**28), (60, 2**29, 2**28)]
    found = read(tmp_path, "t.fit", track_files.fit(records))
    assert [point.values["lat_deg"] for point in found.points] == [45]
    assert found.skipped == Counter({"without a position": 1, "time not readable": 1})


def test_fit__cut_file__keeps_what_was_read(tmp_path: Path) -> None:
    found = read(tmp_path, "t.fit", FILES["track.fit"][:-12])
    assert len(found.points) == 2
    assert found.skipped == Counter({"the rest of the file is not readable": 1})


def test_nmea__bad_sentence_and_no_fix__are_skipped_and_counted(tmp_path: Path) -> None:
    void = track_files.sentence("GPRMC,095959.00,V,,,,,,,010524,,,N")
    lines = track_files.nmea().splitlines()
    damaged = lines[-1].replace("A,43", "A,44")
    log = [track_files.sentence("PGRMC,A,0"), "$GPRMC,", void, *lines[:-1], damaged, "$GPGGA,9*0"]
    found = read(tmp_path, "t.nmea", "\n".join(log))
    assert len(found.points) == 3  # the last one by its GGA and the date before it
    assert found.skipped.pop("the receiver had no fix") >= 1
    assert found.skipped == Counter({"sentence not readable (checksum)": 2})


def test_nmea__no_date__is_skipped_and_counted(tmp_path: Path) -> None:
    place = track_files.nmea_place(43.77, 11.25)
    line = track_files.sentence(f"GPGGA,100000,{place},1,08,0.9,50.5,M,45.0,M,,")
    with pytest.raises(UnreadableTrack, match=r"1 without a date \(first: line 1\)"):
        read(tmp_path, "t.nmea", line)


def test_csv__bad_rows__are_skipped_and_counted(tmp_path: Path) -> None:
    rows = [
        "yesterday,43,11",
        ",43,11",
        f"{ROWS[0][0]},,11",
        f"{ROWS[0][0]},north,11",
        "x" * 70_000,
    ]
    rows += [f'{ROWS[0][0]},"43', "", f"{ROWS[0][0]},91,11"]
    found = read(tmp_path, "t.csv", track_files.csv_rows() + "\n".join(rows))
    assert len(found.points) == 3
    assert found.skipped["time not readable"] == 1
    assert found.skipped["without a time"] == 1
    assert found.skipped["position not readable"] >= 1
    assert found.skipped["line too long"] == 1


def test_csv__given_column_is_missing__is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(track_files.csv_rows())
    with pytest.raises(UnreadableTrack, match="no column v in"):
        read_recording([tmp_path / "t.csv"], FieldNames({"speed_mps": "v"}))


@pytest.mark.parametrize("text", ["tracked_at", "colour=red", "time=", "=x"])
def test_parse_column__not_name_and_field__is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="use NAME=FIELD"):
        parse_column(text)


def test_parse_column__known_names__are_fields() -> None:
    assert parse_column("time=tracked_at") == ("at", "tracked_at")
    assert parse_column("lat=φ") == ("lat_deg", "φ")
    assert parse_column("speed=v (km/h)") == ("speed_mps", "v (km/h)")


@pytest.mark.parametrize(
    ("value", "after_s"),
    [
        ("2024-05-01T10:00:00.250+0000", 0.25),
        ("2024-05-01T10:00:00,250Z", 0.25),
        ("2024-05-01T09:59:60Z", 0),
        ("2024/05/01 10:00:00 UTC", 0),
        ("2024-05-01T15:30:00+0530", 0),
        (1_714_557_600_250.5, 0.2505),
    ],
)
def test_parse_instant__odd_forms__are_read(value: str | float, after_s: float) -> None:
    assert parse_instant(value) - instant_of(0) == timedelta(seconds=after_s)


@pytest.mark.parametrize("value", ["", "nan", "1e300", "inf", True, None, [], "99999999999999999"])
def test_parse_instant__no_instant__is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError, match=r"time|isoformat|year"):
        parse_instant(value)


def track(*days: float) -> list[TrackPoint]:
    return [
        TrackPoint(instant_of(0) + timedelta(days=day), {"lat_deg": 43, "lon_deg": 11})
        for day in days
    ]


@pytest.mark.parametrize(
    ("days", "kept", "named"),
    [
        (
            (-7168, 0, 0.01, 0.02),
            3,
            "1 point left out, dated 2004-09-15 10:00:00: 7,168 days early",
        ),
        ((0, 0.01, 0.02, 7168.01), 3, "7,168 days late, a GPS week rollover"),
        (
            (-300, -299.9, 0, 0.01, 0.02),
            3,
            "2 points left out, dated 2023-07-06 10:00:00: 299 days",
        ),
        ((0, 0.01, 0.02, 60), 3, "59 days after the rest"),
        ((0, 6, 13), 3, None),
    ],
)
def test_leave_out_jumps__weeks_away__are_named_and_left_out(
    days: tuple[float, ...], kept: int, named: str | None
) -> None:
    points, jumps = leave_out_jumps(track(*days))
    assert len(points) == kept
    assert points[-1].at - points[0].at < timedelta(days=14)
    assert len(jumps) == (named is not None)
    assert named is None or named in jumps[0]


def test_read_recording__one_point_before_the_rollover__is_named(tmp_path: Path) -> None:
    rows = track_files.csv_rows() + "2004-09-15T10:00:04Z,43,11\n"
    found = read(tmp_path, "t.csv", rows)
    assert len(found.points) == 3
    assert "7,168 days early, a GPS week rollover" in found.lines()[-1]


def test_read_recording__from_and_to__keep_the_time_between(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(track_files.csv_rows())
    found = read_recording([tmp_path / "t.csv"], None, instant_of(1), instant_of(2))
    assert [point.at for point in found.points] == [instant_of(1)]
    assert found.skipped == Counter({"before --from": 1, "after --to": 1})


def test_read_recording__several_files__says_which_had_the_bad_point(tmp_path: Path) -> None:
    (tmp_path / "a.gpx").write_text(track_files.gpx())
    (tmp_path / "b.csv").write_text(track_files.csv_rows() + "noon,1,2\n")
    found = read_recording([tmp_path / "a.gpx", tmp_path / "b.csv"])
    assert found.lines()[0] == "6 points read from GPX, CSV, 1 skipped"
    assert "first: b.csv, line 5: 'noon'" in found.lines()[1]


def test_read_recording__too_many_points__asks_for_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_POINTS", 2)
    with pytest.raises(UnreadableTrack, match="more than 2 points: choose a time with --from"):
        read(tmp_path, "t.csv", track_files.csv_rows())


def test_kml__cut_in_a_track__keeps_the_pairs_before(tmp_path: Path) -> None:
    document = track_files.kml()
    found = read(tmp_path, "t.kml", document[: document.rindex("</gx:coord>")])
    assert len(found.points) == 2
    assert found.skipped["the rest of the file is not readable"] == 1
