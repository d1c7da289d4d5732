"""requirements/*.txt and web/package-lock.json: each package pinned with its hash, no host named.

Nothing is installed. The files are read as text.
"""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from typing import NamedTuple

import pytest

from tests.unit.deployment.compose import PROJECT

FILES = ("runtime.txt", "development.txt")
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
NOT_IN_IMAGES = ("bench", "cities", "test")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


class Pin(NamedTuple):
    """One package: its versions (per marker) and the number of hashes."""

    versions: set[str]
    hashes: int


@cache
def pins(file: str) -> dict[str, Pin]:
    """Read a requirements file. Every line must be a pin with hashes."""
    text = (PROJECT / "requirements" / file).read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, Pin] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([a-z0-9.-]+)==([^ ;]+)(?: ;[^-]*)?((?: +--hash=\S+)+)", line)
        assert match, f"{file}: {line[:80]}"
        hashes = match[3].split()
        assert all(HASH.fullmatch(one) for one in hashes)
        before = found.get(match[1], Pin(set(), 0))
        found[match[1]] = Pin(before.versions | {match[2]}, before.hashes + len(hashes))
    return found


def declared(*extras: str) -> dict[str, str]:
    """The packages that pyproject.toml itself declares, with their versions."""
    requirements = [*PYPROJECT["project"]["dependencies"], *PYPROJECT["build-system"]["requires"]]
    requirements += [one for extra in extras for one in EXTRAS[extra]]
    found: dict[str, str] = {}
    for one in requirements:
        name, _, version = one.partition("==")
        name = re.sub(r"\[.*\]", "", name)
        if name != "doorstep":
            found[name.lower().replace("_", "-")] = version
    return found


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("runtime.txt", EXTRAS.keys() - set(NOT_IN_IMAGES)),
        ("development.txt", EXTRAS.keys()),
    ],
)
def test_requirements__every_dependency_of_pyproject__is_pinned_with_hashes(
    file: str, extras: set[str]
) -> None:
    for name, version in declared(*extras).items():
        assert version, f"{name} has no exact version"
        assert name in pins(file), f"{name}: run requirements/lock"
        assert pins(file)[name].versions == {version}, f"{name}: run requirements/lock"
        assert pins(file)[name].hashes > 0


def test_requirements__images_and_tests__have_the_same_versions() -> None:
    assert len(pins("runtime.txt")) > 40
    for name, pin in pins("runtime.txt").items():
        assert pins("development.txt")[name] == pin


def test_requirements__only_what_tests_need__stays_out_of_images() -> None:
    assert not {"pytest", "mypy", "ruff", "playwright", "matplotlib"} & pins("runtime.txt").keys()


@pytest.mark.parametrize("file", FILES)
def test_requirements__no_host_and_no_option_is_named(file: str) -> None:
    text = (PROJECT / "requirements" / file).read_text(encoding="utf-8")
    assert not re.search(r"://|(?m:^-)|index|find-links|@", text)


def test_requirements__compiled_packages__have_hashes_of_many_platforms() -> None:
    for name in ("msgspec", "psycopg-binary", "confluent-kafka", "uvloop", "pydantic-core"):
        assert pins("runtime.txt")[name].hashes > 8, f"{name}: Debian 12 and 13, amd64 and arm64"


def test_installation__every_pip_that_may_download__checks_hashes() -> None:
    for name in ("run", "Dockerfile"):
        text = (PROJECT / name).read_text(encoding="utf-8").replace("\\\n", " ")
        assert "--require-hashes -r" in text
    script = (PROJECT / "run").read_text(encoding="utf-8")
    assert re.findall(r'"\$\{pip\[@\]\}" (\S+ ?\S*)', script) == [
        "--require-hashes -r",
        "--no-deps --no-build-isolation",
    ]
    dockerfile = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    download, offline = dockerfile.split("ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels\n")
    assert "pip install" not in download
    assert offline.count("pip install") == 3


def test_package_lock__every_package__has_a_hash_and_no_host() -> None:
    text = (PROJECT / "web" / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    assert len(packages) > 40
    for path, package in packages.items():
        if path:  # the first one is the project itself
            assert package["integrity"].startswith("sha512-"), path
            assert "resolved" not in package, path
    for script in ("run", "Dockerfile"):
        assert "npm ci" in (PROJECT / script).read_text(encoding="utf-8")
        assert "npm install" not in (PROJECT / script).read_text(encoding="utf-8")
