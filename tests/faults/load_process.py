"""Control the load's process (tests.faults.load), and read its journal and its records.

The devices' journal (device.journal) holds what they have published, and what the committed
watermark has not passed yet. The records are JSON lines that the load writes: orders, accepted
commands, fixes of the scripted couriers, HTTP responses.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from device.journal import PublishedBoot, read_published
from doorstep.errors import DoorstepError
from doorstep.provision import numbered_ids
from ops.stack.settings import PROJECT
from ops.stack.stack import Stack
from ops.stack.users import as_user

PROBE = "load-"  # prefix of the drivers' ids
PATCHED = "patched-"  # prefix of drivers whose fixes are sent by PATCH
PATCHED_DRIVERS = 4
EVERY_S = 0.5  # between two fixes of a driver
STOP_TIMEOUT_S = 20.0
PAUSE_TIMEOUT_S = 30.0

Published = Mapping[tuple[str, str], int]
"""The newest seq of each (driver_id, boot)."""


class LoadFailed(DoorstepError):
    """The load's process has ended."""


class LoadProcess:
    """The devices, couriers and customers on an environment's stack."""

    def __init__(self, stack: Stack, rate: float, couriers: int, project: Path = PROJECT) -> None:
        """`project` has the load's code: that of another release, or this one."""
        self.driver_ids = numbered_ids(PROBE, max(2 * couriers, round(rate * EVERY_S)))
        self.patched_ids = numbered_ids(PATCHED, PATCHED_DRIVERS)
        self.couriers = couriers
        self.journal = stack.paths.journals / "load.sqlite"
        self.record_file = stack.paths.journals / "load.jsonl"
        self._stack = stack
        self._project = project
        self._records_offset = 0
        self._records: list[dict[str, Any]] = []
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Register the drivers and start the load."""
        self._stack.add_drivers([*self.driver_ids, *self.patched_ids])
        argv = [sys.executable, "-m", "tests.faults.load", "--record", str(self.record_file)]
        argv += ["--drivers", str(len(self.driver_ids)), "--couriers", str(self.couriers)]
        with (self._stack.paths.logs / "load.log").open("ab") as log:
            self._process = subprocess.Popen(
                as_user(None, argv, on_parent_death="KILL"),
                env={**self._stack.client_environment(), "PYTHONPATH": str(self._project)},
                cwd=self._project,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                text=True,
            )

    def stop(self) -> None:
        """End the process. What is not committed stays in the journal."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def pause(self) -> None:
        """Pause fixes and commands. Returns when it is recorded; devices stay connected."""
        before = self._pauses()
        self._send_command("pause")
        deadline = time.monotonic() + PAUSE_TIMEOUT_S
        while self._pauses() == before and time.monotonic() < deadline:
            self.check()
            time.sleep(0.05)

    def _pauses(self) -> int:
        return sum(one["kind"] == "paused" for one in self.records())

    def resume(self) -> None:
        """Resume after a pause."""
        self._send_command("resume")

    def _send_command(self, word: str) -> None:
        self.check()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def check(self) -> None:
        """Raise LoadFailed if the process has ended."""
        if self._process is None or self._process.poll() is not None:
            log = self._stack.paths.logs / "load.log"
            said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            raise LoadFailed(f"the load's process has ended: {said[-2000:].strip()}")

    # -- journal and records ------------------------------------------------------------------

    def boots(self) -> list[PublishedBoot]:
        """Return what each device has published, from the journal."""
        self.check()
        return read_published(self.journal) if self.journal.exists() else []

    def published(self) -> Published:
        """Return the newest seq of each boot."""
        return {(one.driver_id, one.boot): one.last_seq for one in self.boots()}

    def unacknowledged(self, up_to: Published) -> int:
        """Count the fixes up to these seqs that the devices still keep: not acknowledged yet."""
        self.check()
        uri = f"{self.journal.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as db:
            oldest = db.execute(
                "SELECT driver_id, boot, seq FROM fix JOIN life USING (life_id)"
            ).fetchall()
        return sum(seq <= up_to.get((driver_id, boot), 0) for driver_id, boot, seq in oldest)

    def records(self) -> list[dict[str, Any]]:
        """Return all records, oldest first."""
        if self.record_file.exists():
            with self.record_file.open("rb") as file:
                file.seek(self._records_offset)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._records_offset += len(whole)
            self._records += [json.loads(line) for line in whole.splitlines()]
        return self._records

    def responses(self, what: str, since_s: float, until_s: float) -> list[tuple[int, float]]:
        """Return the responses to probes (`what`: "track", "patch") within two `time.time()`.

        Each is (status, seconds). Status 0 means no response.
        """
        return [
            (one["status"], one["took_s"])
            for one in self.records()
            if one["kind"] == "response"
            and one["what"] == what
            and since_s <= one["at_s"]
            and one["at_s"] + one["took_s"] <= until_s
        ]
