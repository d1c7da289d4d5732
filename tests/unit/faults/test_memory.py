"""Services that grow to their limit: the limits, and the thread that takes the memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from ops.servers.waiting import wait_until
from tests.faults.memory import GIB, GROWING, GROWS_FILE, MIB, memory_limit, resident_bytes


def test_memory_limit__services__are_those_of_the_compose_file() -> None:
    assert memory_limit("webhooks") == GIB
    assert memory_limit("broker_sync") == 256 * MIB


def test_resident_bytes__own_process__holds_what_it_takes() -> None:
    before = resident_bytes(os.getpid())
    taken = b"x" * (64 * MIB)
    assert resident_bytes(os.getpid()) - before > 32 * MIB
    assert taken


def test_growing__its_file_appears__takes_memory_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(GROWING, encoding="utf-8")
    file = tmp_path / "grows"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), GROWS_FILE: str(file)}
    with subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"],
        env=environment,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.5)
            before = resident_bytes(process.pid)
            file.touch()
            wait_until(lambda: resident_bytes(process.pid) > before + 100 * MIB)
        finally:
            process.kill()
    assert before < 100 * MIB
