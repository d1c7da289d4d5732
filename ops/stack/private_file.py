"""Files that hold secrets, or belong to a server's user. Only the standard library is needed."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path


def replace_file(
    path: Path, content: str | bytes, *, mode: int = 0o600, user: str | None = None
) -> None:
    """Replace a file atomically. Its owner is `user` (the current one), who alone may read it."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)  # it may have another owner or mode
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        os.fchmod(file.fileno(), mode)
    hand_over(part, user)
    part.replace(path)


def hand_over(path: Path, user: str | None) -> None:
    """Change a file's or folder's owner. None: the current one."""
    if user is not None:
        entry = pwd.getpwnam(user)
        shutil.chown(path, entry.pw_uid, entry.pw_gid)
