"""Fixtures for every test: a database per test; and the scheduler of a full run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest

from ops.servers.postgres import running_cluster
from ops.stack.addresses import ANY_PORTS, ANY_PORTS_VARIABLE
from ops.stack.postgres import PostgresCluster
from tests.database import Database, cloned_database, create_template
from tests.progress import Progress
from tests.worker_groups import GroupScheduling, sort_for_workers

# Kafka runs for a minute or two: full JIT compilation costs more CPU time than it saves.
os.environ.setdefault("KAFKA_HEAP_OPTS", "-Xms256m -Xmx512m -XX:TieredStopAtLevel=1")

# Workers do not choose each other's ports between the choice and the start of a server.
if worker := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw"):
    share = len(ANY_PORTS) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    first = ANY_PORTS.start + int(worker) * share
    os.environ[ANY_PORTS_VARIABLE] = f"{first}-{first + share - 1}"

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


@pytest.fixture(scope="session")
def only_worker(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """`only_worker("stack")` fails if another worker of this run has made the same claim."""

    def claim(servers: str) -> None:
        if "PYTEST_XDIST_WORKER" not in os.environ:
            return
        folder = tmp_path_factory.getbasetemp().parent  # each worker has a folder in it
        try:
            (folder / f"has {servers}").mkdir()
        except FileExistsError:
            pytest.fail(f"another worker has {servers}")

    return claim


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let a full run print its progress."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and config.getoption("numprocesses", None):
        config.pluginmanager.register(Progress(reporter), "progress")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests of a full run for its workers."""
    sort_for_workers(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """Schedule tests by group, in the order of the collection."""
    config.option.loadscopereorder = False
    return GroupScheduling(config, log)
