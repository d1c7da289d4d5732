"""A stack for the acceptance tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack

ACK_EVERY_S = "1"  # 30 s by default: tests wait for acks


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder that the servers' users can enter. As root, pytest's tmp_path is not."""
    folder = Path(tempfile.mkdtemp(prefix="doorstep-acceptance-"))
    folder.chmod(0o755)
    yield folder / "stack"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def paths() -> Iterator[Path]:
    """The folder of a stack that is not up."""
    with folder_for_all() as paths:
        yield paths


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """A whole stack, shared by the tests that leave it running."""
    with folder_for_all() as paths:
        environment = os.environ | {"ACK_EVERY_S": ACK_EVERY_S}
        settings = StackSettings(doorstep_home=paths, **FREE_PORTS)
        whole = Stack(settings, environment=environment, echo=lambda _: None)
        try:
            whole.up(owner_pid=os.getpid())
            yield whole
        finally:
            whole.down(erase=True)
