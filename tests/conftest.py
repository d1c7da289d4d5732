"""Fixtures for every test: a database of one's own."""

from __future__ import annotations

from collections.abc import Iterator

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
