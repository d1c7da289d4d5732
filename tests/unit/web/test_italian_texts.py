"""The staff's pages: every English text of scripts, HTML and dashboards has an Italian one.

Replaces nothing: Node reads the texts, as the pages do.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import driver_api.app
import tracking_api.app
from doorstep.administration import csv_table
from doorstep.errors import DoorstepError
from doorstep.http import problems
from tracking_api.observe.dashboards import DASHBOARDS

SOURCES = Path(__file__).parents[3] / "web" / "src"
PAGES = ("fleet", "admin", "observe", "reports", "series", "sign-in")
SHARED = ("api", "connection-banner", "refusals")  # scripts that speak on every page
COMMANDS = {"./run staff rotate NAME --role admin", "./run staff add NAME --role viewer"}
SAME = {"PIN", "Admin", "File", "Doorstep", "GeoJSON", "GPX", "CSV", "Kafka", *COMMANDS}
SAID = re.compile(r'\b(?:say|field|choice)\((?:"\w+", )?\s*"((?:[^"\\]|\\.)+)"')
SAID_BY_VALUE = re.compile(r"\bsay\((?!\s*\")([^)]*)\)")
READ = "import(process.argv[1]).then((m) => console.log(JSON.stringify(m.default)))"
TEXT = re.compile("[A-Za-z]{2}")
UNITS = re.compile(r"\d+ (?:min|h)")
# What looks like a text, but for CODE: a capital and small letters, or two words.
LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`')
NOT_A_LITERAL = re.compile(r"^\s*(?://|[*]|/[*]|import |[}] from).*$", re.MULTILINE)
INSERTED = re.compile(r"\$\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")
LIKE_A_TEXT = re.compile("[A-Z][a-z]{2}|[a-z]{2} [a-z]{2}")
CODE = {
    "Content-Type", "Idempotency-Key", "Retry-After", "Feature", "LineString", "Polygon", "Enter",
    "Escape", "ArrowLeft", "ArrowRight", "NotoSans-Bold", "#map canvas", "#tabs button", "timeZone",
    "#table tbody", "dot small-dot", "muted small", "small muted", "muted small mono", "per second",
    "Past: ${label}", "Deutsch", "English", "Français", "Italiano",
}  # fmt: skip
MAX_LINES = 450
# Refusals that staff's pages do not get, or that name what is wrong: a field, a line, a state.
NOT_BY_TYPE = {
    "body-not-read", "sender-too-fast",  # only to phones
    "bad-invitation", "bad-link", "head-too-large", "illegal-transition", "malformed-csv",
    "malformed-fix", "malformed-json", "no-photo", "no-retry", "pin-locked", "rejected-fix",
    "settings", "staff-exists", "unknown-staff", "unknown-stream", "unusable-photo",
    "unusable-request", "upgrade-required", "wrong-pin",
}  # fmt: skip


def italian(path: Path) -> dict[str, str]:
    """The Italian texts of a module, by the English ones."""
    command = ["node", "--input-type=module", "--eval", READ, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def own_texts(page: str) -> dict[str, str]:
    return italian(SOURCES / page / "texts-it.js")


def shared_texts() -> dict[str, str]:
    return italian(SOURCES / "texts-it.js")


def scripts_of(page: str) -> list[Path]:
    found = [SOURCES / f"{page}.js", *sorted((SOURCES / page).glob("*.js"))]
    return [one for one in found if one.name != "texts-it.js"]


def said_in(paths: list[Path]) -> set[str]:
    return {text for path in paths for text in SAID.findall(path.read_text("utf-8"))}


def written_in(page: str) -> set[str]:
    """The texts of a page's HTML that a reader sees or hears."""
    html = (SOURCES / f"{page}.html").read_text("utf-8")
    body = html[html.index("<body") :]
    texts = {re.sub(r"\s+", " ", one.strip()) for one in re.findall(r">([^<>]+)<", body)}
    texts |= set(re.findall(r'(?:aria-label|placeholder|title)="([^"]+)"', body))
    titles = re.findall("<title>(.+)</title>", html)
    texts |= set(titles[0].split(" · "))
    return {one for one in texts if TEXT.search(one) and not UNITS.fullmatch(one)}


def of_dashboards() -> set[str]:
    """Titles, notes, and the names of series that are not a label's value."""
    panels = [panel for one in DASHBOARDS for panel in one.panels]
    texts = {one.title for one in DASHBOARDS} | {panel.title for panel in panels}
    texts |= {panel.note for panel in panels if panel.note}
    texts |= {query.legend for panel in panels for query in panel.queries}
    return {one for one in texts if "{" not in one and one not in ("p50", "p99", "5xx")}


@pytest.mark.parametrize("page", PAGES)
def test_texts__that_a_page_says__are_in_italian_too(page: str) -> None:
    said = said_in([*scripts_of(page), *(SOURCES / f"{one}.js" for one in SHARED)])
    assert len(said) > 10
    if page == "observe":
        said |= of_dashboards()
    known = {*shared_texts(), *own_texts(page), *SAME}
    assert {*said, *written_in(page)} - known == set()


@pytest.mark.parametrize("page", [one for one in PAGES if one != "fleet"])
def test_texts__that_a_page_has_in_italian__are_said(page: str) -> None:
    said = said_in(scripts_of(page)) | written_in(page)
    if page == "observe":
        said |= of_dashboards()
    assert own_texts(page).keys() - said == set()


@pytest.mark.parametrize("page", PAGES)
def test_italian_texts__values__are_as_many_as_in_the_english_ones(page: str) -> None:
    texts = {**shared_texts(), **own_texts(page)}
    odd = {one for one, text in texts.items() if one.count("{}") != text.count("{}")}
    assert odd == set()
    assert all(text.strip() for text in texts.values())


@pytest.mark.parametrize("page", PAGES)
def test_scripts__every_literal_that_looks_like_a_text__is_in_italian(page: str) -> None:
    found: set[str] = set()
    paths = [*scripts_of(page), *(SOURCES / f"{one}.js" for one in SHARED)]
    for path in paths + [SOURCES / "labels.js"] * (page == "fleet"):
        source = NOT_A_LITERAL.sub("", path.read_text("utf-8"))
        found |= {one or other for one, other in LITERAL.findall(source)}
    texts = {one for one in found if LIKE_A_TEXT.search(INSERTED.sub("", one))}
    assert len(texts) > 5
    odd = {one for one in texts if "system-ui" in one} | {"Past position"}  # a font; an image
    assert texts - shared_texts().keys() - own_texts(page).keys() - SAME - CODE - odd == set()


def subclasses(kind: type[DoorstepError]) -> list[type[DoorstepError]]:
    below = kind.__subclasses__()
    return below + [each for one in below for each in subclasses(one)]


def test_refusals__of_the_services__have_an_italian_text() -> None:
    assert driver_api.app  # imported, as the next: they define the errors
    assert tracking_api.app
    types = {one.problem for one in subclasses(DoorstepError)} - NOT_BY_TYPE
    assert len(types) > 30
    assert {f"problem {one}" for one in types} - shared_texts().keys() == set()


def test_complaints__about_fields_and_lines__have_an_italian_text() -> None:
    sources = [Path(str(one.__file__)).read_text("utf-8") for one in (problems, csv_table)]
    listed = re.search(r"_REASONS = \{(.*?)\}", sources[0], re.DOTALL)
    assert listed is not None
    reasons = set(re.findall(r': "(\w+)"', listed[1]))
    reasons |= set(re.findall(r'return "(\w+)"', sources[0]))
    reasons |= set(re.findall(r'complaint\((?:[^()]|\([^()]*\))*"(\w+)"\)', sources[1]))
    assert {"wrong_type", "not_utf8", "duplicate_key"} <= reasons
    assert {f"reason {one}" for one in reasons} - shared_texts().keys() == set()


@pytest.mark.parametrize("page", [one for one in PAGES if one != "fleet"])
def test_scripts__a_text_by_value__is_one_that_the_test_knows(page: str) -> None:
    sources = [path.read_text("utf-8") for path in scripts_of(page)]
    found = {one for source in sources for one in SAID_BY_VALUE.findall(source)}
    known = {"title", "panel.title", "panel.note", "label", "this.panel.title"}
    assert found <= (known if page == "observe" else set())


def test_scripts__of_the_pages__are_short() -> None:
    paths = [path for page in PAGES for path in [*scripts_of(page), SOURCES / page / "texts-it.js"]]
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in paths}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
