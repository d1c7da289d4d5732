"""The fleet that most SQL tests start from."""

from __future__ import annotations

from collections.abc import Iterator

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
