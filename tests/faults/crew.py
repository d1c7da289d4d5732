"""The load, as the lab sees it: a process of its own, its journal and its record.

The journal is the devices' own (device.journal): what they have published, and what the committed
watermark has not passed yet. The record is a file of JSON lines beside it, written by the load:
orders, accepted commands, the scripted couriers' fixes, HTTP answers.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from device.journal import PublishedBoot, read_published
from doorstep.errors import DoorstepError
from doorstep.provision import numbered
from ops.stack.paths import as_user
from ops.stack.settings import PROJECT
from ops.stack.stack import Stack

PROBE = "load-"  # the drivers' ids begin so
PATCHED = "patched-"  # drivers without a phone: their fixes come by PATCH
PATCHED_DRIVERS = 4
EVERY_S = 0.5  # each driver's fixes
STOP_TIMEOUT_S = 20.0
PAUSE_TIMEOUT_S = 30.0

Published = Mapping[tuple[str, str], int]
"""The newest seq of each (driver_id, boot)."""


class LoadFailed(DoorstepError):
    """The load's process ended, or never came to work."""


class Crew:
    """The devices, couriers and customers on a lab's stack."""

    def __init__(self, stack: Stack, rate: float, couriers: int) -> None:
        self.driver_ids = numbered(PROBE, max(2 * couriers, round(rate * EVERY_S)))
        self.patched_ids = numbered(PATCHED, PATCHED_DRIVERS)
        self.couriers = couriers
        self.journal = stack.paths.journals / "load.sqlite"
        self.record_file = stack.paths.journals / "load.jsonl"
        self._stack = stack
        self._read_to = 0
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
                env=self._stack.client_environment(),
                cwd=PROJECT,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                text=True,
            )

    def stop(self) -> None:
        """End it; what is not committed stays in the journal."""
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
        """Write no more fixes and send no more commands; the devices stay connected."""
        before = self._pauses()
        self._say("pause")
        deadline = time.monotonic() + PAUSE_TIMEOUT_S
        while self._pauses() == before and time.monotonic() < deadline:
            self.check()
            time.sleep(0.05)

    def _pauses(self) -> int:
        return sum(one["kind"] == "paused" for one in self.records())

    def go_on(self) -> None:
        """End a pause."""
        self._say("go")

    def _say(self, word: str) -> None:
        self.check()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def check(self) -> None:
        """Raise LoadFailed if the process is gone."""
        if self._process is None or self._process.poll() is not None:
            log = self._stack.paths.logs / "load.log"
            said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            raise LoadFailed(f"the load's process has ended: {said[-2000:].strip()}")

    # -- what it did --------------------------------------------------------------------------

    def lives(self) -> list[PublishedBoot]:
        """What each device has published so far, by its own journal."""
        self.check()
        return read_published(self.journal) if self.journal.exists() else []

    def published(self) -> Published:
        """The newest seq of each boot."""
        return {(one.driver_id, one.boot): one.last_seq for one in self.lives()}

    def unacknowledged(self, up_to: Published) -> int:
        """How many of these fixes the devices still keep, since nobody told them: committed."""
        self.check()
        uri = f"{self.journal.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as db:
            oldest = db.execute(
                "SELECT driver_id, boot, seq FROM fix JOIN life USING (life_id)"
            ).fetchall()
        return sum(seq <= up_to.get((driver_id, boot), 0) for driver_id, boot, seq in oldest)

    def records(self) -> list[dict[str, Any]]:
        """All that it has recorded so far, oldest first."""
        if self.record_file.exists():
            with self.record_file.open("rb") as file:
                file.seek(self._read_to)
                fresh = file.read()
            whole = fresh[: fresh.rfind(b"\n") + 1]
            self._read_to += len(whole)
            self._records += [json.loads(line) for line in whole.splitlines()]
        return self._records

    def answers(self, what: str, since_s: float, until_s: float) -> list[tuple[int, float]]:
        """The answers that probes (`what`: "track", "patch") got, asked between two `time.time()`.

        (status, seconds it took); status 0 is no answer at all.
        """
        return [
            (one["status"], one["took_s"])
            for one in self.records()
            if one["kind"] == "asked"
            and one["what"] == what
            and since_s <= one["at_s"]
            and one["at_s"] + one["took_s"] <= until_s
        ]
