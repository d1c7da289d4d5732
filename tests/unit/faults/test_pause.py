"""The faults' load is paused only when its process has stopped writing; without a stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.faults.crew import Crew

PROJECT = Path(__file__).resolve().parents[3]
LATE = """
import asyncio, pathlib, sys, types
from tests.faults.load import listen
from tests.faults.phones import Record

async def main():
    record = Record(pathlib.Path(sys.argv[1]))
    going = asyncio.Event()
    going.set()
    await asyncio.sleep(0.3)  # busy with something else, and still writing
    record.note("fix")
    await listen(types.SimpleNamespace(going=going), record)

asyncio.run(main())
"""


def test_pause__a_busy_process__returns_when_nothing_more_is_written(
    tmp_path: Path,
) -> None:
    load = Crew.__new__(Crew)
    load.record_file = tmp_path / "load.jsonl"
    load._records, load._read_to = [], 0
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
            load.go_on()
    assert [one["kind"] for one in load.records()] == ["fix", "paused", "paused"]
