"""Each image has only its own extra's packages: what runs in it needs no others.

No image is built. A process in which every other installed package is out of reach imports what the
image runs.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata

import pytest

from tests.unit.deployment.compose import PROJECT

OURS = "doorstep"
RUNS = {  # extra: the modules that its image runs; of a package, all that is in it
    "bridge": ("bridge",),
    "driver-events": ("driver_events",),
    "driver-api": ("driver_api",),
    "tracking-api": ("tracking_api",),
    "simulators": ("simulators.couriers", "simulators.tickers", "simulators.cities"),
    "stack": (
        *("ops.stack.compose_certificates", "ops.stack.compose_database"),
        *("doorstep.kafka.topic_specs", "doorstep.provision", "sql"),
        *(
            "ops.commands.compact_command",
            "ops.commands.learn_command",
            "ops.commands.rebuild_command",
        ),
    ),
}
IMPORT_ALL = """
import importlib, json, pkgutil, sys
blocked, names = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(blocked))
for name in names:
    found = importlib.import_module(name)
    for one in pkgutil.walk_packages(getattr(found, "__path__", ()), name + "."):
        importlib.import_module(one.name)
"""
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def import_all(modules: Iterable[str], packages: set[str]) -> str:
    """Import modules where only these packages are; what went wrong."""
    blocked = [
        module
        for module, owners in owners_of_modules().items()
        if not {_plain(one) for one in owners} & (packages | {OURS})
    ]
    argv = [sys.executable, "-c", IMPORT_ALL, json.dumps([blocked, list(modules)])]
    return subprocess.run(argv, cwd=PROJECT, stderr=subprocess.PIPE, text=True, check=False).stderr


@cache
def owners_of_modules() -> Mapping[str, list[str]]:
    """Which packages each module here came with."""
    return metadata.packages_distributions()


def packages_of(extra: str) -> set[str]:
    """What `pip install .[extra]` brings, by names."""
    found: set[str] = set()
    todo = [*PYPROJECT["dependencies"], *PYPROJECT["optional-dependencies"][extra]]
    while todo:
        name, extras = _read(todo.pop())
        if name == OURS:
            todo += [one for of in extras for one in PYPROJECT["optional-dependencies"][of]]
        elif (key := f"{name}{sorted(extras)}") not in found:
            found |= {key, name}
            todo += [one for one in _requires(name) if _is_asked_for(one, extras)]
    return found


def _requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # of another platform
        return []


def _is_asked_for(requirement: str, extras: set[str]) -> bool:
    of = re.search(r"extra == ['\"]([^'\"]+)", requirement)
    return of is None or of[1] in extras


def _read(requirement: str) -> tuple[str, set[str]]:
    found = re.match(r"([\w.-]+)(?:\[([^\]]*)\])?", requirement)
    assert found is not None
    return _plain(found[1]), {one.strip() for one in (found[2] or "").split(",") if one.strip()}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("extra", RUNS)
def test_image__what_runs_in_it__needs_nothing_but_its_extra(extra: str) -> None:
    assert import_all(RUNS[extra], packages_of(extra)) == ""


def test_image__a_package_of_another_extra__is_out_of_reach() -> None:
    assert "scipy" in packages_of("tracking-api") - packages_of("driver-events")
    assert "scipy" in import_all(["scipy.version"], packages_of("driver-events"))
    assert import_all(["scipy.version"], packages_of("tracking-api")) == ""
