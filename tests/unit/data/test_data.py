"""The bundled data: every helper finds its file, and every folder says where it is from."""

from __future__ import annotations

import pytest

import data
from data.cities import bundled_city


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
