"""The database's folder of before a restore: kept beside the new one, and put back on a failure."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ops.stack.backup_repository import BackupError

SPARE_BYTES = 1 << 30  # for the WAL that is replayed


@dataclass(frozen=True, slots=True)
class PreviousData:
    """A folder of a stopped PostgreSQL under another name."""

    data_dir: Path
    kept: Path

    @classmethod
    def keep(cls, data_dir: Path, needed_bytes: int) -> PreviousData | None:
        """Rename the folder; None if there is none. Raises BackupError if both do not fit."""
        if not data_dir.is_dir() or not any(data_dir.iterdir()):
            return None
        free_bytes = shutil.disk_usage(data_dir).free
        if free_bytes < needed_bytes + SPARE_BYTES:
            raise BackupError(
                f"{data_dir.parent} has {free_bytes / 1e9:.1f} GB left, and a second database "
                f"needs {(needed_bytes + SPARE_BYTES) / 1e9:.1f} GB: make room, or overwrite the "
                "present one with --in-place. Nothing was changed"
            )
        kept = data_dir.with_name(
            f"{data_dir.name}-until-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        )
        try:
            data_dir.rename(kept)
        except OSError as exc:  # a mount point, for example
            raise BackupError(
                f"cannot rename {data_dir} ({exc.strerror}): overwrite it with --in-place. "
                "Nothing was changed"
            ) from exc
        return cls(data_dir, kept)

    def put_back(self) -> None:
        """Replace what a failed restore has written."""
        shutil.rmtree(self.data_dir, ignore_errors=True)
        self.kept.rename(self.data_dir)
