"""Fixtures for every test: a database of one's own; and which tests share a worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from ops.stack.postgres import PostgresCluster
from tests.database import Database, cloned_database, create_template, running_cluster

# A test's Kafka lives for a minute or two: compiling it well costs more CPU time than it saves.
os.environ.setdefault("KAFKA_HEAP_OPTS", "-Xms256m -Xmx512m -XX:TieredStopAtLevel=1")


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """A running cluster with a migrated template database."""
    with running_cluster() as cluster:
        create_template(cluster)
        yield cluster


@pytest.fixture
def database(postgres_cluster: PostgresCluster) -> Iterator[Database]:
    """An empty, migrated database, dropped after the test."""
    with cloned_database(postgres_cluster) as database:
        yield database


# A run of everything has two workers. What shares a stack stays together in one of them; the
# rest goes wherever there is room.
TOGETHER = {
    **dict.fromkeys(("integration", "fuzz", "traces"), "stack"),
    **dict.fromkeys(("acceptance", "browser", "faults"), "acceptance"),
}


class ByServers(LoadScopeScheduling):
    """xdist's way to keep tests together, by folder.

    Its own `loadgroup` writes the group into each test's id, which pytest 9.2 does not let it do.
    """

    def _split_scope(self, nodeid: str) -> str:
        """Name what a test is kept together with: its servers, or nothing but itself."""
        return TOGETHER.get(nodeid.split("/")[1], nodeid)


@pytest.fixture(scope="session")
def only_worker(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """`only_worker("stack")`: fail if another worker of this run has said the same."""

    def claim(servers: str) -> None:
        if "PYTEST_XDIST_WORKER" in os.environ:  # then each has a folder of its own in the run's
            (tmp_path_factory.getbasetemp().parent / f"has {servers}").mkdir()

    return claim


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServers:
    """Deal the tests out by what servers they share."""
    return ByServers(config, log)
