"""A stack that an earlier release has started, and the load of that release's code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from ops.stack.addresses import Addresses
from ops.stack.processes import SERVICES
from ops.stack.settings import StackSettings
from ops.stack.status import ProcessStatus
from ops.stack.supervisor import SUPERVISOR_GUARD
from tests.faults.environment import EnvironmentSettings, FaultEnvironment
from tests.faults.fault_stack import FaultStack
from tests.faults.previous_release import PreviousRelease, Release, runs_from

REVISION = "SELECT version_num FROM public.alembic_version"
START = "stack.up(owner_pid=int(arguments[0]))"
ADD_DRIVERS = "stack.add_drivers(arguments)"


class UpgradedStack(FaultStack):
    """A stack that an earlier release has started."""

    def __init__(
        self, settings: StackSettings, environment: Mapping[str, str], release: PreviousRelease
    ) -> None:
        super().__init__(settings, environment, two_kafkas=False)
        self._release = release
        self._before = dict(environment)
        self.is_upgraded = False

    def start(self) -> None:
        """Start it with the release's code."""
        self._run(START, str(os.getpid()))

    def add_drivers(self, driver_ids: Sequence[str], *, again: bool = False) -> list[object]:  # type: ignore[override]
        """Add drivers, with the release's code until the upgrade."""
        assert not again
        if self.is_upgraded:
            return [*super().add_drivers(driver_ids)]
        self._run(ADD_DRIVERS, *driver_ids)
        return []

    def status(self) -> list[ProcessStatus]:
        """Leave out services that the release does not have, or has without an address."""
        running = self.supervisor.running()
        served = json.loads(self.paths.addresses_file.read_text(encoding="utf-8"))
        without = {one.name for one in fields(Addresses) if one.name not in served}
        return [
            one
            for one in super().status()
            if (one.name in running or one.name == "supervisor") and one.name not in without
        ]

    def _run(self, statement: str, *arguments: str) -> None:
        home = self.paths.root
        self._release.run(home, statement, *arguments, environment=self._before)


class UpgradeEnvironment(FaultEnvironment):
    """An earlier release under the load of its own code."""

    def __init__(self, release: Release, settings: EnvironmentSettings) -> None:
        self._release = release
        super().__init__(settings, say=lambda _line: None)

    def make_stack(self, settings: StackSettings, environment: Mapping[str, str]) -> FaultStack:
        self.release = PreviousRelease(settings.doorstep_home.parent, self._release)
        self.load_project = self.release.project
        self.started = UpgradedStack(settings, environment, self.release)
        return self.started

    def start_stack(self) -> None:
        self.started.start()

    def folders(self) -> dict[str, Path]:
        """Return where each of the stack's programs was started."""
        running = self.stack.supervisor.running()
        programs = [one for one in (*SERVICES, SUPERVISOR_GUARD) if one in running]
        return {name: runs_from(self.pid(name)) for name in programs}

    def revision(self) -> str:
        """Return the revision of the database."""
        with self.database() as conn:
            [revision] = conn.execute(REVISION).fetchone() or ("",)
        return str(revision)
