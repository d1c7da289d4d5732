"""Fixtures of more than one module of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.stack.paths import StackPaths


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    """A stack's folder with its secrets."""
    paths = StackPaths(tmp_path / "stack")
    paths.prepare()
    return paths
