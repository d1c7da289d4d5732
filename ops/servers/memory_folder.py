"""Folders of throw-away servers: in memory where there is room, since tests wait for disks."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - each folder in it is made for one process
# A run's clusters and stacks take some 2 GiB, with WAL and Kafka's segments.
MEMORY_NEEDED = 6 << 30


def make_folder(prefix: str) -> Path:
    """Make a folder that other users can enter, as servers' users must if a test runs as root."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=_parent_folder()))
    folder.chmod(0o711)
    return folder


def _parent_folder() -> Path | None:
    """Return a file system in memory if it has room, else None: the folder of temporary files."""
    try:
        has_room = shutil.disk_usage(MEMORY).free >= MEMORY_NEEDED
    except OSError:
        return None
    return MEMORY if has_room and os.access(MEMORY, os.W_OK) else None
