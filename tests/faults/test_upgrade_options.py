"""An upgrade of a stack with every option: --ha, --observe and backups, under load.

Only from the newest earlier release: the one before it has no --ha.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ops.servers.waiting import wait_until
from ops.stack import monitoring
from ops.stack.monitoring_files import PROGRAMS, find_agent
from ops.stack.processes import BACKUP_WORKER, SERVICES
from ops.stack.programs import find_program
from ops.stack.replicas import patroni
from ops.stack.settings import PROJECT, StackSettings
from ops.stack.supervisor import SUPERVISOR_GUARD
from ops.stack.upgrade import upgrade
from sql.fingerprint import recorded_fingerprints
from tests.acceptance.backed_up_stack import api, run
from tests.faults.checker import Checker
from tests.faults.environment import EnvironmentSettings
from tests.faults.fault_stack import FaultStack
from tests.faults.previous_release import RELEASES, runs_from
from tests.faults.releases import fetched
from tests.faults.upgraded_stack import UpgradeEnvironment
from tests.programs import provided
from tests.prometheus import query, samples

SETTINGS = EnvironmentSettings(rate=20.0, couriers=2, normal_s=20.0)
WITHIN_S = 120.0
OPTIONS = {"DOORSTEP_HA": "true", "DOORSTEP_OBSERVE": "true"}


class OptionsEnvironment(UpgradeEnvironment):
    """An earlier release with two databases, three Kafka nodes, monitoring and one backup."""

    def make_stack(self, settings: StackSettings, environment: Mapping[str, str]) -> FaultStack:
        self.backups = settings.doorstep_home.parent / "disk2"
        chosen = {"doorstep_ha": True, "doorstep_observe": True}
        self.before = {**environment, **OPTIONS}
        return super().make_stack(settings.model_copy(update=chosen), self.before)

    def start_stack(self) -> None:
        super().start_stack()
        set_up = {"BACKUP_DIR": str(self.backups), "BACKUP_PORT": "0"}
        home = self.stack.paths.root
        self.release.command(home, "backup", environment={**self.before, **set_up})

    def folders(self) -> dict[str, Path]:
        """Return where each program was started, the backup worker included."""
        return super().folders() | {BACKUP_WORKER: runs_from(self.pid(BACKUP_WORKER))}


@pytest.fixture(scope="module")
def env() -> Iterator[OptionsEnvironment]:
    """The release before this one, with every option, under the load of its own code."""
    for program in ("pgbackrest", "etcd", "patroni", *PROGRAMS.values()):
        provided(find_program, program, "./run test")
    provided(find_agent)
    with OptionsEnvironment(fetched(RELEASES[0]), SETTINGS) as env:
        yield env


def test_upgrade__of_a_stack_with_every_option__all_run_the_new_code_and_nothing_is_lost(
    env: OptionsEnvironment,
) -> None:
    assert set(env.folders().values()) == {env.release.project}
    published = env.load.published()

    upgrade(env.stack, lambda _line: None)
    env.started.is_upgraded = True

    env.wait_healthy()
    result = Checker(env).check(published)
    assert result.ok, result.violations
    assert (result.lost, result.duplicates) == (0, 0)
    assert result.commit_acked > 0
    programs = (*SERVICES, SUPERVISOR_GUARD, BACKUP_WORKER)
    assert env.folders() == dict.fromkeys(programs, PROJECT)
    assert env.revision() == max(recorded_fingerprints())


def test_standby__after_the_upgrade__streams(env: OptionsEnvironment) -> None:
    def roles() -> list[bool]:
        """Of each server: whether it is the primary, or a standby that commits wait for."""
        return [patroni.probe(bind)[0] for bind in env.addresses.patroni]

    wait_until(lambda: roles() == [True, True], WITHIN_S, "the standby streams")


def test_prometheus__after_the_upgrade__scrapes_every_target_of_the_new_release(
    env: OptionsEnvironment,
) -> None:
    wanted = {
        (one["labels"]["job"], one["targets"][0])
        for one in monitoring.targets(env.addresses, backups=True)
    }

    def scraped() -> set[tuple[str, str]]:
        found = samples(env.stack, "up == 1")
        return {(labels["job"], labels["instance"]) for labels, _ in found}

    wait_until(lambda: scraped() == wanted, WITHIN_S, "every target")
    jobs = [job for job, _ in wanted]
    assert {*SERVICES, "broker_sync", "backups", "patroni", "kafka"} <= set(jobs)
    assert jobs.count("postgres") == 2
    wait_until(lambda: query(env.stack, "pg_up") == [1, 1], WITHIN_S, "both databases")


def test_kafka_view__after_the_upgrade__has_every_copy_and_the_lag(env: OptionsEnvironment) -> None:
    def answer() -> Any:
        return api(env.stack, "/observe/kafka")

    def missing() -> set[int]:
        return {
            node
            for topic in answer()["topics"]
            for one in topic["partitions"]
            for node in one["out_of_sync"]
        }

    wait_until(lambda: not missing(), WITHIN_S, "every copy")
    found = answer()
    assert found["nodes"] == [1, 2, 3]
    replicas = {one["replicas"] for topic in found["topics"] for one in topic["partitions"]}
    assert replicas == {3}
    groups = {one["name"]: one for one in found["groups"]}
    assert groups["driver-events"]["kept_in"] == "database"
    assert None not in [one["lag"] for one in groups["driver-events"]["offsets"]]


def test_backup__after_the_upgrade__is_whole(env: OptionsEnvironment) -> None:
    run(env.stack, "backup")
    listed = json.loads(run(env.stack, "backups", "--verify", "--json"))
    assert [one["type"] for one in listed["backups"]] == ["full", "incr"]
    assert listed["is_valid"]
