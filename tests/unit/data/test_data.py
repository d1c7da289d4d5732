"""The bundled data: every helper finds its file, and every folder says where it is from."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import data
from data.cities import Bounds, UnknownCity, bundled_city, find_city, list_cities


@pytest.mark.parametrize(
    "find",
    [
        lambda: bundled_city().tiles,
        lambda: bundled_city().road_nodes,
        lambda: bundled_city().road_edges,
        lambda: bundled_city().restaurants,
        lambda: bundled_city().buildings,
        data.french_cities,
        data.world_backdrop,
        data.meal_delivery_calibration,
    ],
)
def test_bundled_file__is_there(find) -> None:  # type: ignore[no-untyped-def]
    assert find().stat().st_size > 1000


def test_every_data_folder__has_its_provenance() -> None:
    folders = [
        path for path in data.DATA_DIR.iterdir() if path.is_dir() and not path.name.startswith("_")
    ]

    assert len(folders) >= 4
    assert all((folder / "PROVENANCE.md").exists() for folder in folders)


def test_data_path__unknown__raises() -> None:
    with pytest.raises(FileNotFoundError):
        data.data_path("atlantis")


CODE = {".css", ".html", ".js", ".json", ".mjs", ".py", ".sh", ".sql", ".toml", ".yaml", ".yml", ""}
PLACES_OF_THE_EXAMPLE = (f"data/{data.BUNDLED_CITY}/", "data/__init__.py", "docs/")


def test_code__outside_the_bundled_example__never_names_its_city() -> None:
    """Other code takes the name from `data.BUNDLED_CITY`."""
    root = data.DATA_DIR.parent
    argv = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=True).stdout
    files = [name for name in listed.split("\0") if Path(name).suffix in CODE and name]
    assert len(files) > 400
    naming = [
        name
        for name in files
        if not name.startswith(PLACES_OF_THE_EXAMPLE)
        and (root / name).is_file()
        and data.BUNDLED_CITY in f"{name} {(root / name).read_text(errors='replace')}".lower()
    ]
    assert naming == []


def test_list_cities__broken_and_hidden_folders__are_left_out(tmp_path: Path) -> None:
    made = tmp_path / "testville"
    shutil.copytree(bundled_city().path, made)
    description = json.loads((made / "city.json").read_text())
    (made / "city.json").write_text(json.dumps(description | {"name": "testville"}))
    (tmp_path / ".testville.part").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "city.json").write_text("{}")

    assert [city.name for city in list_cities(tmp_path)] == [data.BUNDLED_CITY, "testville"]
    assert find_city("testville", tmp_path).zone.key == "Europe/Rome"
    for name in ("empty", "broken", "../testville", "atlantis"):
        with pytest.raises(UnknownCity):
            find_city(name, tmp_path)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        (Bounds(11.0, 43.0, 12.0, 44.0), (11.5, 43.5), (12.5, 43.5)),
        (Bounds(179.0, -19.0, -179.0, -16.0), (-179.5, -17.0), (178.5, -17.0)),
    ],
)
def test_bounds__also_across_180_degrees__contain_what_is_inside(
    bounds: Bounds, inside: tuple[float, float], outside: tuple[float, float]
) -> None:
    assert bounds.contains(*inside)
    assert not bounds.contains(*outside)
    assert bounds.width_deg in (1.0, 2.0)
