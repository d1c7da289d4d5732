"""Reading recorded tracks, and moving them in time."""

from __future__ import annotations

import argparse
import json
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from data.cities import bundled_city
from simulators.couriers.sample import deliver, gpx_lines
from simulators.couriers.streets import load_streets
from simulators.outcomes import name_outcome
from simulators.replay import describe, plan_replay
from simulators.send import read_fix
from simulators.tracks import TrackPoint, UnreadableTrack, parse_instant, read_recording, read_track
from simulators.tracks.reading import NO_TRACK
from tests.track_files import write

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "gps"
SAMPLE = Path(__file__).resolve().parents[3] / "simulators/tracks/delivery.gpx"

GPX = """<?xml version="1.0"?>
<gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>
 <trkpt lat="43.77" lon="11.25"><ele>50.5</ele><time>2024-05-01T10:00:00Z</time></trkpt>
 <trkpt lat="43.78" lon="11.26"><time>2024-05-01T10:00:04+02:00</time>
  <extensions><speed>4.5</speed><course>360</course></extensions></trkpt>
</trkseg></trk></gpx>"""


def track(*seconds: float) -> list[TrackPoint]:
    return [
        TrackPoint(parse_instant(1_700_000_000 + after), {"lat_deg": 43.0, "lon_deg": 11.0})
        for after in seconds
    ]


def test_read_track__gpx__has_positions_times_and_extensions(tmp_path: Path) -> None:
    first, second = read_track(write(tmp_path, "t.gpx", GPX))
    assert first.at == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert first.values == {"lat_deg": 43.77, "lon_deg": 11.25, "altitude_m": 50.5}
    assert second.at == datetime(2024, 5, 1, 8, 0, 4, tzinfo=UTC)
    assert second.values["speed_mps"] == 4.5
    assert second.values["heading_deg"] == 0.0  # 360


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("time,lat,lon,azimuth", "2014-09-10 06:54:07+0200,48.16,11.56,"),
        ("Timestamp;Latitude;Longitude", "1410324847;48.16;11.56"),
        ("lng\tlat\tts", "11.56\t48.16\t1410324847000"),
        ("fix_ts,lon,lat,accuracy", "1410324847.0,11.56,48.16,-1"),
        ("\ufefflat_deg,lon_deg,fix_at", "48.16,11.56,2014-09-10T04:54:07"),
    ],
)
def test_read_track__csv_of_many_kinds__finds_its_columns(
    tmp_path: Path, head: str, row: str
) -> None:
    (point,) = read_track(write(tmp_path, "t.csv", f"{head}\n{row}\n"))
    assert point.at == datetime(2014, 9, 10, 4, 54, 7, tzinfo=UTC)
    assert point.values == {"lat_deg": 48.16, "lon_deg": 11.56}


def test_read_track__geojson_points_and_line__are_the_same_track(tmp_path: Path) -> None:
    positions, times = (
        [[11.25, 43.77, 50], [11.26, 43.78, 51]],
        [1_714_557_600_000, 1_714_557_604_000],
    )
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": position},
            "properties": {"time": time},
        }
        for position, time in zip(positions, times, strict=True)
    ]
    line = {
        "type": "Feature",
        "geometry": {"type": "LineString", "coordinates": positions},
        "properties": {"coordTimes": ["2024-05-01T10:00:00Z", "2024-05-01T10:00:04Z"]},
    }
    collection = {"type": "FeatureCollection", "features": features}
    by_points = read_track(write(tmp_path, "p.geojson", json.dumps(collection)))
    by_line = read_track(write(tmp_path, "l.geojson", json.dumps(line)))
    assert by_points == by_line
    assert by_line[0].values == {"lat_deg": 43.77, "lon_deg": 11.25, "altitude_m": 50}


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.csv", "time,lat\n2024-05-01T10:00:00Z,43\n", "no column lon_deg"),
        ("b.csv", "lat,lon\n43,11\n", "no column time .*--column time=COLUMN"),
        ("f.geojson", '{"type": "FeatureCollection"}', "neither a Google Timeline nor GeoJSON"),
        ("g.txt", "Dear Anna,\n", f"g.txt: {NO_TRACK}$"),
        ("h.html", "<html><body/></html>", f"{NO_TRACK}: the XML root is html"),
        ("i.json", '{"name": "doorstep"}', NO_TRACK),
        ("j.json", "{", NO_TRACK),
        ("k.gpx", " \n", "k.gpx: the file is empty$"),
    ],
)
def test_read_track__unreadable__names_the_file_and_the_reason(
    tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    with pytest.raises(UnreadableTrack, match=complaint) as caught:
        read_track(write(tmp_path, name, text))
    assert name in str(caught.value)


def test_read_track__missing_or_binary_file__is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTrack) as caught:
        read_track(tmp_path / "no.gpx")
    assert str(caught.value) == f"{tmp_path}/no.gpx: No such file or directory"
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UnreadableTrack, match=f"photo.jpg: {NO_TRACK}$"):
        read_track(tmp_path / "photo.jpg")


def test_read_recording__no_points__is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTrack, match="no usable point"):
        read_recording([write(tmp_path, "t.csv", "time,lat,lon\n")])


def test_read_recording__several_files_out_of_order__are_one_track_in_time(tmp_path: Path) -> None:
    late = write(tmp_path, "1.csv", "t,lat,lon\n1700000100,1,1\n1700000090,2,2\n")
    early = write(tmp_path, "2.csv", "t,lat,lon\n1700000000,3,3\n")
    assert [point.values["lat_deg"] for point in read_recording([late, early]).points] == [3, 2, 1]


@pytest.mark.parametrize("speedup", [1.0, 10.0, 0.5])
def test_plan_replay__any_speed__keeps_intervals_and_dates_the_last_fix_when_sent(
    speedup: float,
) -> None:
    plan = plan_replay(track(0, 4, 5, 3600), speedup)
    dated = [fix.dated_after_s for fix in plan]
    assert [after - dated[0] for after in dated] == pytest.approx([0, 4, 5, 3600])
    assert plan[-1].dated_after_s == pytest.approx(plan[-1].send_after_s)
    assert plan[-1].send_after_s == pytest.approx(3600 / speedup)


def test_plan_replay__faster__never_dates_a_fix_in_the_future() -> None:
    assert min(fix.lateness_s for fix in plan_replay(track(*range(0, 7200, 60)), 60)) >= 0


def test_describe__a_track_longer_than_the_window__warns() -> None:
    lines = describe(plan_replay(track(0, 3600, 200_000), 60), 60)
    assert "2 of them" in lines[1]
    assert "too_old" in lines[1]
    (line,) = describe(plan_replay(track(0, 3600, 200_000), 1), 1)
    assert line.endswith("(at real speed)")


@pytest.mark.parametrize(
    ("outcome", "name"),
    [
        ({"outcome": "duplicate", "reason": None}, "committed"),
        ({"outcome": "duplicate", "reason": "null_island"}, "quarantined: null_island"),
        ({"outcome": "rejected", "reason": "too_old"}, "rejected: too_old"),
        ({"outcome": "committed", "reason": None}, "committed only by this check"),
    ],
)
def test_name_outcome__sent_again__describes_the_first_outcome(
    outcome: dict[str, str | None], name: str
) -> None:
    assert name_outcome(outcome) == name


def test_read_fix__values_not_given__are_left_out() -> None:
    given = {"lat_deg": 43.0, "lon_deg": 11.0, "at": None, "accuracy_m": 5.0}
    absent = dict.fromkeys(("speed_mps", "heading_deg", "altitude_m", "battery"))
    fix = read_fix(argparse.Namespace(**given, **absent), now=1_700_000_000.5)
    expected = {"fix_at": 1_700_000_000_500, "lat_deg": 43.0, "lon_deg": 11.0, "accuracy_m": 5.0}
    assert fix == expected


@pytest.mark.skipif(not SHARED.exists(), reason="the recorded tracks are not on this machine")
@pytest.mark.parametrize(
    ("pattern", "points"),
    [("limerick_bus304/*.gpx", 2144), ("barefoot_munich/x0001-001.csv", 1194)],
)
def test_read_recording__real_recordings__have_all_points(pattern: str, points: int) -> None:
    found = read_recording(sorted(SHARED.glob(pattern))).points
    assert len(found) == points
    assert all(-90 <= point.values["lat_deg"] <= 90 for point in found)


def test_read_recording__the_sample__equals_its_generator_s_output() -> None:
    points = read_recording([SAMPLE]).points
    assert len(points) == SAMPLE.read_text(encoding="utf-8").count("<trkpt")
    assert {after.at - before.at for before, after in pairwise(points)} == {timedelta(seconds=4)}
    assert all("accuracy_m" in point.values and "speed_mps" in point.values for point in points)
    rng, streets = random.Random(7), load_streets(bundled_city())
    name, course = deliver(streets, bundled_city(), rng)
    made = "\n".join(gpx_lines(streets, f"A delivery from {name}", course, rng)) + "\n"
    assert made == SAMPLE.read_text(encoding="utf-8")
