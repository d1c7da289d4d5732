"""LoadProcess.pause returns when the process has stopped writing. The seam: no stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.faults.load_process import LoadProcess

PROJECT = Path(__file__).resolve().parents[3]
LATE = """
import asyncio, pathlib, sys, types
from tests.faults.load import follow_commands
from tests.faults.load_devices import Recorder

async def main():
    record = Recorder(pathlib.Path(sys.argv[1]))
    running = asyncio.Event()
    running.set()
    await asyncio.sleep(0.3)  # busy, and still writing
    record.write("fix")
    await follow_commands(types.SimpleNamespace(running=running), record)

asyncio.run(main())
"""


def test_pause__busy_process__returns_when_nothing_more_is_written(
    tmp_path: Path,
) -> None:
    load = LoadProcess.__new__(LoadProcess)
    load.record_file = tmp_path / "load.jsonl"
    load._records, load._records_offset = [], 0
    with subprocess.Popen(
        [sys.executable, "-c", LATE, str(load.record_file)],
        stdin=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    ) as process:
        load._process = process
        for _ in range(2):
            load.pause()
            assert [one["kind"] for one in load.records()][-1] == "paused"
            load.resume()
    assert [one["kind"] for one in load.records()] == ["fix", "paused", "paused"]
