"""The whole native stack, for the benchmarks that measure it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import stop
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack


@contextmanager
def running_stack(echo: Callable[[str], None], *, has_replicas: bool = False) -> Iterator[Stack]:
    """Run it on free ports in a temporary folder; erase it at the end, on SIGTERM too."""
    signal.signal(signal.SIGTERM, stop)
    with tempfile.TemporaryDirectory(prefix="doorstep-bench-") as folder:
        Path(folder).chmod(0o755)  # the servers run as other users
        home = Path(folder) / "stack"
        settings = StackSettings(doorstep_home=home, doorstep_ha=has_replicas, **FREE_PORTS)
        stack = Stack(settings, echo=echo)
        try:
            stack.up(owner_pid=os.getpid())
            yield stack
        finally:
            stack.down(erase=True)
