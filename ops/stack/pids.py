"""Process ids."""

from __future__ import annotations

from pathlib import Path


def process_exists(pid: int) -> bool:
    """Return whether a process runs. Zombies count as stopped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] != ["Z"]
