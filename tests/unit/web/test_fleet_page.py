"""The fleet's page: every text of its scripts has an Italian one. Replaces nothing."""

from __future__ import annotations

import re
from pathlib import Path

SOURCES = Path(__file__).parents[3] / "web" / "src"
ITALIAN = SOURCES / "fleet" / "texts-it.js"
SAME = {"PIN", "Series", "Admin", "File"}
MAX_LINES = 450


def test_texts__that_the_scripts_say__are_in_italian_too():
    keys = {
        quoted or bare
        for quoted, bare in re.findall(
            r'^  (?:"((?:[^"\\]|\\.)+)"|([A-Za-z]+)):', ITALIAN.read_text("utf-8"), re.MULTILINE
        )
    }
    said: set[str] = set()
    for path in [SOURCES / "fleet.js", *(SOURCES / "fleet").glob("*.js")]:
        source = path.read_text("utf-8")
        said |= set(
            re.findall(r'\b(?:say|field|choice)\((?:"\w+", )?\s*"((?:[^"\\]|\\.)+)"', source)
        )
    assert len(said) > 80
    assert said - keys - SAME == set()


def test_texts__of_the_page__are_in_italian_too():
    html = (SOURCES / "fleet.html").read_text("utf-8")
    body = html[html.index("<body") :]
    texts = {one.strip() for one in re.findall(r">([^<>]+)<", body)}
    texts |= set(re.findall(r'(?:aria-label|placeholder)="([^"]+)"', body))
    words = {one for one in texts if re.search("[a-z]{3}", one)}
    italian = ITALIAN.read_text("utf-8")
    missing = {one for one in words if f'"{one}":' not in italian and f"  {one}:" not in italian}
    assert missing <= {*SAME, "Doorstep", "GeoJSON"}


def test_scripts__of_the_page__are_short():
    long = {
        path.name: lines
        for path in [SOURCES / "fleet.js", *(SOURCES / "fleet").glob("*.js")]
        if (lines := len(path.read_text("utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}
