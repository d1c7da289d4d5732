"""The built pages: their sizes, and that they name files which exist. Replaces nothing.

A budget of bytes holds on every machine; `bench.pages` measures times.
"""

from __future__ import annotations

import gzip
import re

import pytest

from web import DIST

pytestmark = pytest.mark.skipif(not (DIST / "track.html").is_file(), reason="pages are not built")

KB = 1000
FIRST_SCRIPT_KB = 15  # not even compressed
BEFORE_MAP_KB = 25  # compressed, as all of the following; 150 are allowed
MAP_CODE_KB = 265  # MapLibre 229, the tiles' reader and ours; its worker; its style
HASHED = re.compile(r"-[0-9A-Z]{8}[.](?:js|css|svg)$")
PAGES = (
    "track.html",
    "fleet.html",
    "series.html",
    "observe.html",
    "sign-in.html",
    "admin.html",
    "join.html",
    "restaurant.html",
    "reports.html",
)


def compressed(name: str) -> int:
    """The bytes of a file as a browser gets it."""
    return (DIST / f"{name}.br").stat().st_size


def assets_of(page: str) -> list[str]:
    """The files that a page names."""
    return sorted(set(re.findall(r'"/assets/([^"]+)"', (DIST / page).read_text("utf-8"))))


def static_imports(name: str) -> list[str]:
    """The files that a script imports at once."""
    script = (DIST / name).read_text("utf-8")
    found = re.findall(r'import(?:[^"()]*from)?\s*"(?:[.]|/assets)/([^"]+)"', script)
    return [each for one in found for each in (one, *static_imports(one))]


def first_script() -> list[str]:
    """The customer page's script and all that it imports at once."""
    scripts = [name for name in assets_of("track.html") if name.endswith(".js")]
    return sorted({each for one in scripts for each in (one, *static_imports(one))})


@pytest.mark.parametrize("page", PAGES)
def test_page__its_assets__exist_and_have_hashed_names(page):
    assets = assets_of(page)
    assert assets
    assert [name for name in assets if not HASHED.search(name)] == []
    assert [name for name in assets if not (DIST / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES)
def test_page__what_its_scripts_import_at_once__is_fetched_with_them(page):
    scripts = [name for name in assets_of(page) if name.endswith(".js")]
    imported = {each for one in scripts for each in static_imports(one)}
    assert imported - set(scripts) == set()


def test_first_script__size__is_within_budget():
    size = sum((DIST / name).stat().st_size for name in first_script())
    assert 0 < size <= FIRST_SCRIPT_KB * KB


def test_first_script__imports__have_no_map():
    assert [name for name in first_script() if "map" in name] == []


def test_track_page__all_before_the_map__is_within_budget():
    files = ["track.html", *assets_of("track.html"), *first_script()]
    size = sum(compressed(name) for name in set(files))
    assert 0 < size <= BEFORE_MAP_KB * KB


def test_map_code__size__is_within_budget():
    [order_map] = [path.name for path in DIST.glob("order-map-*.js")]
    [style] = [path.name for path in DIST.glob("map-*.css")]
    [worker] = [path.name for path in DIST.glob("maplibre-worker-*.js")]
    files = {order_map, *static_imports(order_map), style, worker} - set(first_script())
    assert any(name.startswith("maplibre-shared-") for name in files)
    assert sum(compressed(name) for name in files) <= MAP_CODE_KB * KB


def test_compressed_copies__every_script_style_and_page__hold_the_same_in_fewer_bytes():
    files = [path for path in DIST.iterdir() if path.suffix in (".js", ".css", ".html")]
    assert files
    for path in files:
        content = path.read_bytes()
        packed = path.with_name(f"{path.name}.gz").read_bytes()
        assert gzip.decompress(packed) == content
        assert compressed(path.name) < len(content)
