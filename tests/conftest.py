"""Fixtures for every test: a database per test; and which tests share an xdist worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from ops.servers.postgres import running_cluster
from ops.stack.postgres import PostgresCluster
from tests.database import Database, cloned_database, create_template

# Kafka runs for a minute or two: full JIT compilation costs more CPU time than it saves.
os.environ.setdefault("KAFKA_HEAP_OPTS", "-Xms256m -Xmx512m -XX:TieredStopAtLevel=1")

# No deadline for an example: tests set no upper bound on time.
hypothesis.settings.register_profile("doorstep", deadline=None)
hypothesis.settings.load_profile("doorstep")


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


# A full run has two workers. Tests that share a stack run in one worker; the others run anywhere.
WORKER_GROUPS = {
    **dict.fromkeys(("integration", "fuzz", "traces"), "stack"),
    **dict.fromkeys(("acceptance", "browser", "faults"), "acceptance"),
}


class FolderScheduling(LoadScopeScheduling):
    """Keep tests of one worker group together, by folder.

    xdist's own `loadgroup` writes the group into each test's id, which pytest 9.2 does not allow.
    """

    def _split_scope(self, nodeid: str) -> str:
        """Return the worker group of a test, or its id if it has none."""
        return WORKER_GROUPS.get(nodeid.split("/")[1], nodeid)


@pytest.fixture(scope="session")
def only_worker(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """`only_worker("stack")` fails if another worker of this run has made the same claim."""

    def claim(servers: str) -> None:
        if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a folder in the run's folder
            (tmp_path_factory.getbasetemp().parent / f"has {servers}").mkdir()

    return claim


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FolderScheduling:
    """Schedule tests by worker group."""
    return FolderScheduling(config, log)
