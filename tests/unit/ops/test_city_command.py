"""`./run city` without a stack: what it refuses, and what it says to do next."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from data import BUNDLED_CITY
from data.cities import Bounds
from ops import cli
from ops.commands.city_command import parse_bounds
from tests.osm_grid import write_osm


@pytest.fixture(autouse=True)
def stack_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stack's folder; cities are beside it."""
    monkeypatch.setenv("DOORSTEP_HOME", str(tmp_path / "stack"))
    monkeypatch.delenv("CITIES_DIR", raising=False)
    return tmp_path


def run(*argv: str) -> int:
    return cli.main(["city", *argv])


def test_city__added_updated_and_listed__is_in_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract = str(write_osm(tmp_path / "grid.osm"))
    assert run("add", "gridville", "--osm", extract) == 0
    assert "./run demo --city gridville" in capsys.readouterr().err
    assert (tmp_path / "cities" / "gridville" / "map.pmtiles").exists()
    assert run("add", "gridville", "--osm", extract) == 1
    assert "./run city update gridville --osm FILE" in capsys.readouterr().err
    assert run("update", "gridville", "--osm", extract) == 0
    assert run("list") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        BUNDLED_CITY,
        "gridville",
    ]


def test_update__a_bad_file__leaves_the_city_as_it_was(tmp_path: Path) -> None:
    assert run("add", "gridville", "--osm", str(write_osm(tmp_path / "grid.osm"))) == 0
    before = (tmp_path / "cities" / "gridville" / "city.json").read_bytes()
    (tmp_path / "bad.osm.pbf").write_bytes(b"x" * 100)
    assert run("update", "gridville", "--osm", str(tmp_path / "bad.osm.pbf")) == 1
    assert (tmp_path / "cities" / "gridville" / "city.json").read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "next_step"),
    [
        (("add", "Grid/ville", "--osm", "x.osm.pbf"), "use 1 to 40 of a-z"),
        (("add", BUNDLED_CITY, "--osm", "x.osm.pbf"), "choose another name"),
        (("update", "atlantis", "--osm", "x.osm.pbf"), "./run city add atlantis"),
        (("remove", "atlantis"), "./run city list"),
        (("remove", BUNDLED_CITY), "stays"),
    ],
)
def test_city__a_name_that_does_not_fit__is_refused_with_the_next_step(
    argv: tuple[str, ...], next_step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 1
    assert next_step in capsys.readouterr().err


def test_demo__in_an_unknown_city__names_the_list_and_how_to_add_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["demo", "--city", "atlantis"]) == 1
    assert capsys.readouterr().err == (
        "run: no city atlantis: ./run city list shows them; "
        "./run city add atlantis --osm FILE.osm.pbf adds one\n"
    )


def test_bounds__also_across_180_degrees__are_read() -> None:
    assert parse_bounds("24.93,60.16,24.96,60.18") == Bounds(24.93, 60.16, 24.96, 60.18)
    assert parse_bounds("178,-19,-179,-16").west == 178
    for text in ("1,2,3", "a,b,c,d", "1,3,2,2", "181,0,182,1", "1,0,1,2"):
        with pytest.raises(argparse.ArgumentTypeError):
            parse_bounds(text)
