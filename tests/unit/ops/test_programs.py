"""Programs that `./run` unpacks: where they are found, and what a test does without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.stack.errors import StackError
from ops.stack.programs import find_program
from ops.stack.settings import StackSettings
from tests.programs import provided

MISSING = "no-such-program"


def test_find_program__unpacked_and_installed__takes_the_unpacked_one(tmp_path: Path) -> None:
    settings = StackSettings(doorstep_tools=tmp_path)
    assert Path(find_program(settings, "sh", "./run up")).parent != tmp_path / "bin"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").touch()
    assert find_program(settings, "sh", "./run up") == str(tmp_path / "bin" / "sh")


def test_find_program__missing__names_the_command_that_downloads_it() -> None:
    with pytest.raises(StackError, match=r"no-such-program is missing: \./run up --tls downloads"):
        find_program(StackSettings(), MISSING, "./run up --tls")


@pytest.mark.parametrize("ci", ["", "true"])
def test_provided__missing_program__fails_the_test(
    monkeypatch: pytest.MonkeyPatch, ci: str
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(pytest.fail.Exception, match=MISSING):
        provided(find_program, MISSING, "./run test")
