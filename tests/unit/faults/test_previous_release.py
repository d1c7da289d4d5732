"""The release from which tests/faults/test_upgrade.py upgrades."""

from __future__ import annotations

from ops.stack.settings import PROJECT
from tests.faults.previous_release import VERSION


def test_previous_release__changelog__is_the_one_before_this() -> None:
    lines = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()

    _this, before, *_ = (line for line in lines if line.startswith("## "))

    assert before == f"## {VERSION}"
