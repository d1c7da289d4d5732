"""An upgrade from an earlier release under load: migrate first, then service by service.

Devices, couriers, customers and PATCHes run with the code of that release all the time. The upgrade
is `./run upgrade` of this code.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ops.stack.processes import SERVICES
from ops.stack.settings import PROJECT
from ops.stack.supervisor import SUPERVISOR_GUARD
from ops.stack.upgrade import upgrade
from sql.fingerprint import recorded_fingerprints
from tests.faults.apis import Callers
from tests.faults.checker import Checker
from tests.faults.environment import EnvironmentSettings
from tests.faults.previous_release import RELEASES
from tests.faults.releases import fetched
from tests.faults.upgrade_responses import is_allowed, summary
from tests.faults.upgraded_stack import UpgradeEnvironment
from tests.faults.viewer_pool import ViewerPool
from tests.faults.viewers import orders_under_way, viewer_pool_of

RATE = 40.0
COURIERS = 2
NORMAL_S = 20.0  # much longer than usual: the machine may be busy
VIEWERS = 24
WITHIN_S = 300.0
RETRIES = 200  # 60 s and more
MANY_OF_ONE_ADDRESS = (("HTTP_MAX_UNAUTHENTICATED", "1000"),)  # while no token can be checked


@pytest.fixture(scope="module", params=RELEASES, ids=[one.version for one in RELEASES])
def env(request: pytest.FixtureRequest) -> Iterator[UpgradeEnvironment]:
    """An earlier release under load."""
    settings = EnvironmentSettings(
        rate=RATE, couriers=COURIERS, normal_s=NORMAL_S, environment=MANY_OF_ONE_ADDRESS
    )
    with UpgradeEnvironment(fetched(request.param), settings) as env:
        yield env


def test_upgrade__from_an_earlier_release_under_load__loses_nothing_and_streams_resume(
    env: UpgradeEnvironment,
) -> None:
    before, revision, published = env.folders(), env.revision(), env.load.published()
    assert set(before.values()) == {env.release.project}
    steps: list[str] = []
    with (
        orders_under_way(env) as orders,
        viewer_pool_of(env, orders, VIEWERS) as pool,
        Callers(env.stack, retries=RETRIES) as callers,
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
    assert {one for one in responses if not is_allowed(one)} == set()
    assert env.folders() == dict.fromkeys((*SERVICES, SUPERVISOR_GUARD), PROJECT)
    assert env.revision() == max(recorded_fingerprints())


@pytest.mark.parametrize("env", RELEASES[:1], indirect=True, ids=[RELEASES[0].version])
def test_upgrade__again__is_the_same_and_processes_are_found(env: UpgradeEnvironment) -> None:
    published, bridge, steps = env.load.published(), env.pid("bridge"), list[str]()

    with Callers(env.stack, retries=RETRIES) as callers:
        callers.wait_steady()
        upgrade(env.stack, steps.append)
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
