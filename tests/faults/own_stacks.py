"""Faults that other tests make on stacks of their own: an upgrade, a restore."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from types import TracebackType
from typing import Self

from ops.stack.settings import PROJECT
from tests.faults.environment import EnvironmentSettings, FaultEnvironment
from tests.faults.fault import Counts, Fault, Outcome
from tests.faults.previous_release import RELEASES, missing_releases
from tests.faults.progress import Say

TIMEOUT_S = 1800.0  # of a fault
COUNTED = r".*?(?P<acked>\d+) {}, (?P<lost>\d+) lost(, (?P<twice>\d+) twice)?.*$"
UPGRADED = re.compile(r"^\.*from " + COUNTED.format("fixes acknowledged"), re.MULTILINE)
RESTORED = re.compile(
    r"^\.*device: " + COUNTED.format("in the database") + r"|^\.*restored.* are missing$",
    re.MULTILINE,
)


class OwnStacks(FaultEnvironment):
    """No stack: each fault starts its own, and checks it."""

    def __init__(self, settings: EnvironmentSettings, say: Say) -> None:
        self.settings, self.say = settings, say

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        pass


def upgraded(_env: FaultEnvironment) -> Outcome:
    """Upgrade from each of the two releases before this one under load."""
    return run_tests("tests/faults/test_upgrade.py", UPGRADED, claims=len(RELEASES))


def restored(_env: FaultEnvironment) -> Outcome:
    """Restore to a chosen second, and to the last backup, while devices and callers go on."""
    return run_tests("tests/acceptance/test_restore_ledger.py", RESTORED)


def run_tests(path: str, claim: re.Pattern[str], claims: int = 1) -> Outcome:
    """Run tests that print what they have seen: at least so many claims."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", path],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return outcome_of(done.stdout, claim, claims, ok=done.returncode == 0)


def outcome_of(output: str, claim: re.Pattern[str], claims: int = 1, *, ok: bool) -> Outcome:
    """Return what tests have printed, and the counts in it. Fewer claims are a failure."""
    found = list(claim.finditer(output))
    seen = [one.group().lstrip(".") for one in found]
    if not ok:
        seen += [line for line in output.splitlines() if line.startswith(("E  ", "FAILED"))][:3]
    totals = (
        sum(int(one.groupdict().get(name) or 0) for one in found)
        for name in ("acked", "lost", "twice")
    )
    if len(found) < claims:
        seen.append(f"{len(found)} of {claims} tests have printed what they saw")
    return Outcome("; ".join(seen), None, ok and len(found) >= claims, Counts(*totals))


FAULTS = (
    Fault(
        29,
        "an upgrade from each of the two releases before, service by service",
        "0 lost, no 5xx but 503, streams resume",
        None,
        quick=False,
        run=upgraded,
        environment="own",
        not_here=missing_releases(),
    ),
    Fault(
        38,
        "a restore to a chosen second",
        "no fix over MQTT is missing; of the requests exactly those after that second",
        None,
        quick=False,
        run=restored,
        environment="own",
        not_here="" if shutil.which("pgbackrest") else "pgbackrest is not installed",
    ),
)
