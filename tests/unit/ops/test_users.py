"""Data folders of servers that run as users of their own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ops.stack.paths import StackPaths
from ops.stack.users import make_data_dir, server_user


def test_make_data_dir__current_user__is_a_private_folder(tmp_path: Path) -> None:
    folder = make_data_dir(None, tmp_path / "a" / "data", pytest.fail)
    assert folder == tmp_path / "a" / "data"
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")
def test_make_data_dir__user_cannot_enter_the_parent__links_to_var_lib(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    messages: list[str] = []
    folder = make_data_dir("nobody", private / "postgres", messages.append)
    try:
        assert folder.is_relative_to("/var/lib")
        assert (private / "postgres").resolve() == folder
        assert folder.owner() == "nobody"
        assert len(messages) == 1
    finally:
        StackPaths(private).erase()
    assert not folder.exists()
    shutil.rmtree(private, ignore_errors=True)


def test_server_user__no_such_user__is_none() -> None:
    assert server_user("no-such-user-here") is None
