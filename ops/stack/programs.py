"""Finds programs that `./run` unpacks to .doorstep/bin, because their packages start servers."""

from __future__ import annotations

import shutil

from ops.stack.errors import StackError
from ops.stack.settings import StackSettings


def find_program(settings: StackSettings, name: str, command: str) -> str:
    """Return a program's path. Raises StackError, which names the command that downloads it."""
    unpacked = settings.doorstep_tools.absolute() / "bin" / name
    program = str(unpacked) if unpacked.exists() else shutil.which(name)
    if program is None:
        raise StackError(f"{name} is missing: {command} downloads it")
    return program
