"""The registry of benchmarks. One test replaces a benchmark's process."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from bench.__main__ import BenchFailed, format_result, listing, main, run
from bench.measure import Measurements
from bench.naive_reads import HISTORY, NEAREST, POSITION, TILE, with_psycopg_placeholders
from bench.naive_track import EVENTS, NOTICES, ORDER, START_OF_RIDE, Arrival, FullTrack, Properties
from bench.reads import CACHED_TILES, ZOOM, all_tiles, tile_at
from bench.registry import BENCHMARKS, Benchmark
from ops.stack.settings import PROJECT
from tracking_api.track.schemas import EtaAnswer, PositionProperties, TrackAnswer


def test_benchmarks__each__has_a_one_line_purpose_and_a_module() -> None:
    for name, one in BENCHMARKS.items():
        assert one.name == name
        assert one.purpose
        assert "\n" not in one.purpose
        assert importlib.util.find_spec(one.module) is not None, one.module
        assert name in listing()


def test_benchmarks__the_quick_set__is_not_empty() -> None:
    assert any(one.is_quick for one in BENCHMARKS.values())


def test_measurements__several_runs__give_range_median_and_ratio() -> None:
    measurements = Measurements("one", "µs", ["ours", "theirs"])
    for ours, theirs in ((2, 30), (1, 10), (3, 20)):
        measurements.add("ours", ours)
        measurements.add("theirs", theirs)
    assert measurements.result() == {
        "name": "one",
        "runs": 3,
        "unit": "µs",
        "ours": {"min": 1, "median": 2, "max": 3},
        "others": {"theirs": {"min": 10, "median": 20, "max": 30, "ratio": 10.0}},
    }


def test_fanout__a_result__converts_to_the_common_format() -> None:
    costs = {
        "ours": {"min": 1.0, "median": 2.0, "max": 3.0},
        "bare": {"min": 1.0, "median": 1.0, "max": 1.0},
    }
    shaped = BENCHMARKS["fanout"].shape({"cpu_us_per_push": costs})
    assert shaped["others"]["bare"]["ratio"] == 0.5
    assert "bare" in format_result({"name": "fanout", **shaped})


def test_record_fixes__a_result__compares_with_the_largest_batch() -> None:
    costs = {
        "500": {"min": 20.0, "median": 30.0, "max": 40.0},
        "5000": {"min": 10.0, "median": 15.0, "max": 20.0},
    }
    shaped = BENCHMARKS["record-fixes"].shape({"server_cpu_us_per_fix": costs, "batches": 4})
    assert shaped["ours"]["median"] == 15.0
    assert shaped["others"]["batches of 500"]["ratio"] == 2.0


def test_growth__a_result__compares_with_the_smallest_fleet() -> None:
    points = {
        size: {"cpu_us_per_fix": {"min": us, "median": us, "max": us}}
        for size, us in (("1000", 10.0), ("100000", 12.0))
    }
    shaped = BENCHMARKS["growth"].shape({"drivers": points, "batches": 4})
    assert shaped["others"]["100000 drivers"]["ratio"] == 1.2


def test_format_result__parts__have_a_ratio_each() -> None:
    one = {"min": 1.0, "median": 2.0, "max": 3.0}
    part = {"ours": one, "others": {"theirs": one | {"ratio": 1.5}}}
    lines = format_result({"name": "reads", "parts": {"track": part, "tile": part}}).splitlines()
    assert [line.strip() for line in lines if "(" not in line] == ["reads:", "track", "tile"]
    assert sum(line.endswith("1.5 x") for line in lines) == 2


SLOW = """
import signal, sys, threading
from bench.measure import stop
signal.signal(signal.SIGTERM, stop)
try:
    print("running", file=sys.stderr, flush=True)
    threading.Event().wait(60)
finally:
    print("stopped", file=sys.stderr, flush=True)
"""
ONE_SLOW = """
from bench import __main__ as main
from bench.registry import BENCHMARKS, Benchmark
BENCHMARKS["slow"] = Benchmark("slow", "slow", "a stand-in", ())
main.main(["slow"])
"""


@pytest.mark.parametrize(
    "statement", [ORDER, EVENTS, NOTICES, START_OF_RIDE, POSITION, NEAREST, TILE, HISTORY]
)
def test_naive_reads__a_statement__gets_psycopg_placeholders_only(statement: str) -> None:
    names = re.findall(r"(?<!:):([a-z_]+)", statement)
    converted = with_psycopg_placeholders(statement, dict.fromkeys(names, 1)).decode()
    assert names
    assert not re.search(r"(?<!:):[a-z]", converted)
    assert all(f"%({name})s" in converted for name in names)


@pytest.mark.parametrize(
    ("plain", "ours"),
    [(FullTrack, TrackAnswer), (Arrival, EtaAnswer), (Properties, PositionProperties)],
)
def test_naive_track__its_answer__has_the_members_of_ours(
    plain: type[BaseModel], ours: type[BaseModel]
) -> None:
    assert list(plain.model_fields) == list(ours.model_fields)


def test_reads__tiles__lie_within_the_city() -> None:
    paths = all_tiles()
    assert len(paths) == len(set(paths)) > CACHED_TILES
    x, y = tile_at(11.25, 43.775)  # its centre
    assert f"/fleet/tiles/{ZOOM}/{x}/{y}.mvt" in paths


def test_run__a_benchmark__converts_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "fake"
    line = json.dumps({"unit": "µs", "ours": {"min": 1, "median": 1, "max": 1}, "others": {}})
    program.write_text(f"#!/bin/sh\necho chatter\necho '{line}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    result = run(Benchmark("fake", "bench.decode", "a stand-in", ()), quick=True)
    assert (result["name"], result["ours"]["median"]) == ("fake", 1)


def test_main__sigterm__stops_the_benchmark_cleanly(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-c", ONE_SLOW],
        env=os.environ | {"PYTHONPATH": f"{PROJECT}{os.pathsep}{tmp_path}"},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "running\n"
    process.terminate()
    assert process.stderr.readline() == "stopped\n"
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_run__no_such_module__raises() -> None:
    with pytest.raises(BenchFailed, match="does not exist"):
        run(Benchmark("none", "bench.no_such_module", "none", ()), quick=True)


def test_main__an_unknown_name__exits_with_the_available_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["nonsense"])
    assert "bridge" in capsys.readouterr().err
