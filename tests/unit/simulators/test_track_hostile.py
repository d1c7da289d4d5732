"""Hostile files cost little: bombs, endless lines and tags, damaged bytes."""

from __future__ import annotations

import gzip
import random
import resource
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from simulators.tracks import (
    Recording,
    UnreadableTrack,
    read_recording,
    sources,
    xml_events,
)
from tests import track_files
from tests.track_files import FILES


def read(folder: Path, name: str, content: bytes | str) -> Recording:
    return read_recording([track_files.write(folder, name, content)])


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE gpx [<!ENTITY a "aaaaaaaaaa">'
    '<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
)


@pytest.mark.parametrize(
    "head",
    [
        BOMB,
        '<!DOCTYPE gpx [<!ENTITY x SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE gpx SYSTEM "http://127.0.0.1:9/x.dtd">',
    ],
)
@pytest.mark.parametrize("make", [track_files.gpx, track_files.kml])
def test_xml__document_type__is_refused(tmp_path: Path, head: str, make: object) -> None:
    document = make().replace('<?xml version="1.0"?>', head)
    with pytest.raises(UnreadableTrack, match="document type"):
        read(tmp_path, "t.xml", document)


def test_xml__many_elements__are_read_in_bounded_memory(tmp_path: Path) -> None:
    junk = b"<a><b/></a>" * 100_000  # 1.1 MB; its events at once would take 60 MB
    document = track_files.gpx().encode().replace(b"<trk>", b"<x>" + junk + b"</x><trk>")
    tracemalloc.start()
    try:
        found = read(tmp_path, "t.gpx", document)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.points) == 3
    assert peak < 15e6  # the document in this test, and the events of one chunk


@pytest.mark.parametrize("start", ['<trk name="', "<!-- ", "<trk><trk "])
def test_xml__tag_without_an_end__is_not_kept(tmp_path: Path, start: str) -> None:
    path = tmp_path / "t.gpx"
    with path.open("w") as file:
        file.write(track_files.gpx().replace("</trkseg></trk></gpx>", start))
        for _ in range(64):
            file.write("9 > " * (sources.MIB // 4) if start != "<trk><trk " else "9" * sources.MIB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read_recording([path])
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(found.points) == 3
    assert found.skipped == Counter({"the rest of the file is not readable": 1})
    assert grown_kib < 40 * 1024  # of 64 MiB


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        (track_files.gpx("<trkpt>" * 20), "more than 10 elements"),
        ("<kml>" + "<Folder>" * 9, "more than 8 deep"),
    ],
)
def test_xml__too_many_elements__is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: str, complaint: str
) -> None:
    monkeypatch.setattr(xml_events, "MAX_ELEMENTS", 10)
    monkeypatch.setattr(xml_events, "MAX_DEPTH", 8)
    with pytest.raises(UnreadableTrack, match=complaint):
        read(tmp_path, "t.gpx", document)


@pytest.mark.parametrize("name", ["bomb.kmz", "bomb.csv.gz"])
def test_archive__unpacks_to_too_much__is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_UNPACKED_BYTES", sources.MIB)
    zeros = track_files.csv_rows().encode() + b"\n" * (2 * sources.MIB)
    packed = {
        "bomb.kmz": track_files.zipped("track.csv", zeros),
        "bomb.csv.gz": gzip.compress(zeros),
    }
    with pytest.raises(UnreadableTrack, match="longer than 1 MiB"):
        read(tmp_path, name, packed[name])


@pytest.mark.parametrize("head", ["time,lat,lon\n", "$GPRMC,,V,,,,,,,,,,N*53\n"])
def test_lines__one_very_long_line__is_not_kept(tmp_path: Path, head: str) -> None:
    path = tmp_path / "long.csv"
    with path.open("w") as file:
        file.write(head)
        for _ in range(64):
            file.write("9" * sources.MIB)
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableTrack, match="line too long"):
            read_recording([path])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6


def test_json__too_large__is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_JSON_BYTES", 100)
    with pytest.raises(UnreadableTrack, match="JSON of more than"):
        read(tmp_path, "t.json", track_files.geojson())


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04 no archive", b"\x1f\x8b no gzip", FILES["track.csv.gz"][:-20], b"\x00" * 99,
     b"\x0e\x10\x14\x08\xff\xff\xff\xff.FIT", b"[" * 100_000, b'{"type": "Feature"', b"<" * 99,
     track_files.zipped("readme.md", b"x")],
    ids=["zip", "gzip", "cut-gzip", "zeros", "fit", "nested", "json", "xml", "readme"],
)  # fmt: skip
def test_read__damaged_file__is_one_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnreadableTrack):
        read(tmp_path, "file", content)


@pytest.mark.parametrize("name", FILES)
def test_read__damaged_bytes__give_points_or_one_error(tmp_path: Path, name: str) -> None:
    rng, good = random.Random(name), FILES[name]
    read_files = 0
    for _ in range(60):
        damaged = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        cut = rng.randint(len(damaged) // 2, len(damaged))
        try:
            found = read(tmp_path, name, bytes(damaged[:cut]))
        except UnreadableTrack:
            continue
        read_files += 1
        assert found.points
        assert all(abs(point.values["lat_deg"]) <= 90 for point in found.points)
    assert read_files < 60
