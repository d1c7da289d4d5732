"""The pages' links, paths and commands lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ops.cli import launcher_commands

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("docs", "sql", "bench", "tests")
PAGES = [
    *ROOT.glob("*.md"),
    *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")),
]
GUIDES = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which names old ones, too
# A path in the text begins with one of the project's own folders.
TOP = "bench|bridge|data|device|docs|doorstep|driver_api|driver_events|eta|kafka|mosquitto|ops"
PATH = re.compile(rf"`((?:{TOP}|prometheus|simulators|sql|tests|tracking_api|web)/[\w./-]*)`")
MODULE = re.compile(r"python -m ([a-z_.]+)")
BESIDE_LAUNCHER = {"test", "faults", "load", "bench", "compose-secrets"}  # by the shell script


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links_of(page: Path) -> Iterator[tuple[Path, str]]:
    """The page's links inside the project: the file, and the anchor or an empty text."""
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        address = "".join(link)
        if not re.match(r"[a-z]+:", address):
            path, _, anchor = address.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def anchors_of(page: Path) -> set[str]:
    """The headings as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_docs__links__lead_to_files_and_headings(page: Path) -> None:
    dead = [
        (name_of(target) if target.is_relative_to(ROOT) else str(target), anchor)
        for target, anchor in links_of(page)
        if not target.exists() or (anchor and anchor not in anchors_of(target))
    ]
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_docs__paths_in_the_text__exist(page: Path) -> None:
    found = PATH.findall(page.read_text(encoding="utf-8"))
    assert [path for path in found if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_docs__commands__exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    commands = launcher_commands() | BESIDE_LAUNCHER
    assert set(re.findall(r"\./run ([a-z][a-z-]*)", text)) <= commands
    for module in MODULE.findall(text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), module


def test_docs__images__are_all_shown() -> None:
    shown = {target for page in PAGES for target, _ in links_of(page)}
    images = (path for path in (ROOT / "docs" / "images").rglob("*") if path.is_file())
    assert {path for path in images if path not in shown} == set()


def test_docs__refusal_reasons__are_those_of_the_contract() -> None:
    page = (ROOT / "docs" / "reference" / "bad-input.md").read_text(encoding="utf-8")
    table = page.split("\n## Reasons\n")[1].split("**Quarantine**")[0]
    explained = {
        reason
        for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
        for reason in re.findall(r"`(\w+)`", row)
    }
    contract = yaml.safe_load(
        (ROOT / "docs" / "reference" / "asyncapi.yaml").read_text(encoding="utf-8")
    )
    assert explained == set(contract["components"]["schemas"]["Reason"]["enum"])
