"""An upgrade from the last release under load: migrate first, then service by service.

Devices, couriers, customers and PATCHes run with the code of the last release all the time. The
upgrade is `./run upgrade` of this code.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from ops.stack.processes import SERVICES
from ops.stack.settings import PROJECT, StackSettings
from ops.stack.status import ProcessStatus
from ops.stack.supervisor import SUPERVISOR_GUARD
from ops.stack.upgrade import upgrade
from sql.fingerprint import recorded_fingerprints
from tests.faults.apis import Callers, Response
from tests.faults.checker import Checker
from tests.faults.environment import EnvironmentSettings, FaultEnvironment, FaultStack
from tests.faults.previous_release import PreviousRelease, runs_from
from tests.faults.viewer_pool import ViewerPool
from tests.faults.viewers import orders_under_way, viewer_pool_of

RATE = 40.0
COURIERS = 2
NORMAL_S = 20.0  # much longer than usual: the machine may be busy
VIEWERS = 24
WITHIN_S = 300.0
REVISION = "SELECT version_num FROM public.alembic_version"
START = "stack.up(owner_pid=int(arguments[0]))"
ADD_DRIVERS = "stack.add_drivers(arguments)"


class UpgradedStack(FaultStack):
    """A stack that the last release has started."""

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
        """Leave out services that the release does not have."""
        running = self.supervisor.running()
        return [one for one in super().status() if one.name in running or one.name == "supervisor"]

    def _run(self, statement: str, *arguments: str) -> None:
        home = self.paths.root
        self._release.run(home, statement, *arguments, environment=self._before)


class UpgradeEnvironment(FaultEnvironment):
    """The last release under the load of its own code."""

    def make_stack(self, settings: StackSettings, environment: Mapping[str, str]) -> FaultStack:
        self.release = PreviousRelease(settings.doorstep_home.parent)
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


@pytest.fixture(scope="module")
def env() -> Iterator[UpgradeEnvironment]:
    """The last release under load."""
    settings = EnvironmentSettings(rate=RATE, couriers=COURIERS, normal_s=NORMAL_S)
    with UpgradeEnvironment(settings, say=lambda _line: None) as env:
        yield env


def test_upgrade__from_the_last_release_under_load__loses_nothing_and_streams_resume(
    env: UpgradeEnvironment,
) -> None:
    before, revision, published = env.folders(), env.revision(), env.load.published()
    assert set(before.values()) == {env.release.project}
    steps: list[str] = []
    with (
        orders_under_way(env) as orders,
        viewer_pool_of(env, orders, VIEWERS) as pool,
        Callers(env.stack) as callers,
    ):
        pool.wait(lambda one: one.is_watching, WITHIN_S, "all are watching")
        callers.wait_steady()
        began = time.monotonic()

        upgrade(env.stack, steps.append)
        env.started.is_upgraded = True

        ended = time.monotonic()
        env.wait_healthy(since=ended)
        resumed(pool, since=began)
        callers.wait_steady()
        responses, lost = callers.since(began), callers.lost()
    result = Checker(env).check(published)
    print(
        f"from {env.release.name}, {revision} to {env.revision()}, in {ended - began:.1f} s: "
        f"{result.commit_acked} fixes acknowledged, {result.lost} lost, {result.duplicates} twice, "
        f"{lost} acknowledged PATCHes lost; {summary(responses)}; steps: {'; '.join(steps)}"
    )
    assert result.ok, result.violations
    assert (result.lost, result.duplicates, lost) == (0, 0, 0)
    assert result.commit_acked > 0
    wrong = {one for one in responses if not is_allowed(one)}
    assert wrong == set()
    assert env.folders() == dict.fromkeys((*SERVICES, SUPERVISOR_GUARD), PROJECT)
    assert env.revision() == max(recorded_fingerprints())


def test_upgrade__again__is_the_same_and_processes_are_found(env: UpgradeEnvironment) -> None:
    published, bridge = env.load.published(), env.pid("bridge")

    with Callers(env.stack) as callers:
        callers.wait_steady()
        upgrade(env.stack, lambda _line: None)
        callers.wait_steady()

    assert {one for one in callers.responses if not is_allowed(one)} == set()
    assert callers.lost() == 0
    assert env.pid("bridge") != bridge
    assert len(env.stack.supervisor.groups("services")) == 1
    with env.shut_down("driver_events"):
        assert env.stack.supervisor.running()["driver_events"].state == "STOPPED"
    env.wait_healthy()
    result = Checker(env).check(published)
    assert result.ok, result.violations


def resumed(pool: ViewerPool, since: float) -> None:
    """Wait until each viewer has lost its stream, and sees positions again."""
    pool.wait(lambda one: any(at > since for at in one.lost_at), WITHIN_S, "all were cut off")
    pool.wait(
        lambda one: one.is_watching and one.lags != [] and one.lags[-1][0] > one.first_frame_at,
        WITHIN_S,
        "all see positions again",
    )


def is_allowed(response: Response) -> bool:
    """No response while a process starts again, and 503 with Retry-After, are allowed."""
    if response.status >= 500:
        return response.status == 503 and response.retry_after
    return response.status in (0, 200)


def summary(responses: Sequence[Response]) -> str:
    """Count the responses by status."""
    found = Counter(one.status for one in responses)
    failed_retry = sum(one.retry_status not in (None, 200) for one in responses)
    counts = ", ".join(f"{times} x {status or 'none'}" for status, times in sorted(found.items()))
    return f"{counts}; {failed_retry} failed again at their one retry"
