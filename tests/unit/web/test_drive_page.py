"""The courier's page as built: its size, its service worker, its texts, and its device in Node."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.unit.web.test_page_sizes import KB, assets_of, compressed, static_imports
from web import DIST

PROJECT = Path(__file__).parents[3]
PAGE_KB = 20  # compressed: the page, its script and its style

needs_build = pytest.mark.skipif(not (DIST / "drive.html").is_file(), reason="pages are not built")


def test_page_device__answers_of_http__are_handled():
    tests = PROJECT / "tests/device_cases/page_device.test.mjs"
    done = subprocess.run(["node", "--test", tests], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^# pass [1-9]", done.stdout, re.MULTILINE)


@needs_build
def test_drive_page__size__is_within_budget_and_has_no_map():
    assets = assets_of("drive.html")
    scripts = [name for name in assets if name.endswith(".js")]
    files = {"drive.html", *assets, *(each for one in scripts for each in static_imports(one))}
    assert [name for name in files if "map" in name] == []
    packed = [name for name in files if (DIST / f"{name}.br").is_file()]
    assert 0 < sum(compressed(name) for name in packed) <= PAGE_KB * KB


@needs_build
def test_service_worker__shell__is_all_that_the_page_names():
    worker = (DIST / "drive-service-worker.js").read_text("utf-8")
    found = re.search(r"const SHELL = (\[.*\]);", worker)
    assert found is not None
    shell = set(json.loads(found[1]))
    assert shell == {
        "/drive",
        "/drive/manifest.webmanifest",
        *(f"/assets/{name}" for name in assets_of("drive.html")),
    }


@needs_build
def test_manifest__icons__exist():
    manifest = json.loads((DIST / "drive.webmanifest").read_text("utf-8"))
    icons = [icon["src"].removeprefix("/assets/") for icon in manifest["icons"]]
    assert len(icons) == 2
    assert [name for name in icons if not (DIST / name).is_file()] == []


def test_texts__every_language__has_the_same():
    source = (PROJECT / "web/src/drive/texts.js").read_text("utf-8")
    keys = {
        language: sorted(re.findall(r"[{,]\s*(\w+):", body))
        for language, body in re.findall(r"const ([A-Z]{2}) = (\{.*?\n\});", source, re.DOTALL)
    }
    assert sorted(keys) == ["DE", "EN", "FR", "IT"]
    assert len(keys["EN"]) > 50
    assert all(found == keys["EN"] for found in keys.values())
