"""One throw-away PostgreSQL cluster that does not survive a crash of the machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.stack.addresses import any_free_port
from ops.stack.postgres import NOT_DURABLE, PostgresCluster

PASSWORD = "test-only"  # noqa: S105 - of every role; the cluster listens on loopback only


@contextmanager
def running_cluster() -> Iterator[PostgresCluster]:
    """Run an empty cluster in a temporary folder, and erase it at the end."""
    # pytest's tmp_path can be entered by its owner only, and as root the server is another user.
    folder = Path(tempfile.mkdtemp(prefix="doorstep-test-"))
    folder.chmod(0o711)
    config = {**NOT_DURABLE, "shared_buffers": "64MB", "max_connections": "60"}
    cluster = PostgresCluster(folder / "data", any_free_port(), PASSWORD, config=config)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.erase()
        shutil.rmtree(folder, ignore_errors=True)
