"""A stack with --ha loses the disk of its primary database, and of a Kafka node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.checker import Checker
from tests.faults.environment import EnvironmentSettings
from tests.faults.lost_machines import (
    Lose,
    ReplicatedEnvironment,
    lose_kafka,
    lose_one,
    lose_primary,
)

SETTINGS = EnvironmentSettings(rate=40.0, couriers=2, normal_s=20.0)


@pytest.fixture(scope="module")
def env() -> Iterator[ReplicatedEnvironment]:
    """Two database servers, three etcd and three Kafka nodes under load."""
    with ReplicatedEnvironment(SETTINGS, say=lambda _line: None) as env:
        yield env


def test_primary__lost_with_its_disk__the_standby_has_all_that_was_acknowledged(
    env: ReplicatedEnvironment,
) -> None:
    before = env.primary()
    assert_nothing_lost(env, lose_primary)
    assert env.primary() != before


def test_kafka_node__lost_with_its_disk__loses_nothing_and_joins_again(
    env: ReplicatedEnvironment,
) -> None:
    assert_nothing_lost(env, lose_kafka(2))


def assert_nothing_lost(env: ReplicatedEnvironment, lose: Lose) -> None:
    published = env.load.published()
    loss = lose_one(env, lose)
    assert loss.ok, loss
    result = Checker(env).check(published)
    assert result.ok, result
    assert result.commit_acked > 0
