"""Fixtures of more than one module of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.stack.monitoring_files import JMX_AGENT, PROGRAMS
from ops.stack.paths import StackPaths


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    """A stack's folder with its secrets."""
    paths = StackPaths(tmp_path / "stack")
    paths.prepare()
    return paths


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder of tools with empty programs."""
    folder = tmp_path / "tools"
    programs = (*PROGRAMS.values(), "etcd")
    for name in (*(f"bin/{program}" for program in programs), f"lib/{JMX_AGENT}"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder
