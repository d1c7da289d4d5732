"""The fleet that most SQL tests start from, and a connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.database import Database
from tests.sql.fleet import Fleet


@pytest.fixture
def fleet(database: Database) -> Iterator[Fleet]:
    """Restaurant 1, its service area, and drivers d1 and d2 on duty."""
    fleet = Fleet(database)
    fleet.add_drivers("d1", "d2")
    yield fleet
    fleet.close()


@pytest.fixture
def conn(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """The owner's connection. The test commits."""
    with database.connect() as conn:
        yield conn
