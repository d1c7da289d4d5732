"""Fixtures for every test: a database of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from doorstep.stack.postgres import PostgresCluster
from tests.database import Database, cloned_database, create_template, running_cluster


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests share servers."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(TOGETHER[folder]))
