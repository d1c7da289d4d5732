"""The sheets of the pages in docs/reference/pages.md. Replaces nothing.

`test_docs` looks for files that are not there, and for images that no page shows.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser.pictures.__main__ import PAGES
from tests.browser.pictures.sheet import MAX_BYTES
from tests.browser.pictures.studio import FOLDER

REFERENCE = Path(__file__).parents[3] / "docs/reference/pages.md"
SHEETS = ("phone-en", "phone-it", "desktop")


def listed() -> list[str]:
    """The sheets that the reference shows, in its order."""
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", REFERENCE.read_text("utf-8"))
    assert {(REFERENCE.parent / one).resolve().parent for one in images} == {FOLDER}
    return [Path(one).name for one in images]


def test_reference__each_sheet__is_listed_once() -> None:
    assert sorted(listed()) == sorted(one.name for one in FOLDER.iterdir())


@pytest.mark.parametrize("page", PAGES)
def test_reference__each_page__has_a_phone_in_both_languages_and_a_desktop(page: str) -> None:
    assert {f"{page}-{one}.webp" for one in SHEETS} - set(listed()) == set()


def test_sheets__each__is_small() -> None:
    large = {one.name for one in FOLDER.iterdir() if one.stat().st_size > MAX_BYTES}
    assert large == set()
