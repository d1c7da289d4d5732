"""The database shows customers what the rule shows them, in any simulated shift."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import note

from ops.stack.postgres import PostgresCluster
from tests.database import cloned_database
from tests.property.draws import check_each
from tests.property.fleet import Fleet
from tests.property.play_shift import open_restaurants, play_shift
from tests.property.shifts import Shift, shifts
from tests.property.test_order_proof import CASES, FIRST_SEED, PATIENT


@pytest.fixture(scope="module")
def fleet(postgres_cluster: PostgresCluster) -> Iterator[Fleet]:
    """One database for all shifts."""
    with cloned_database(postgres_cluster) as database:
        fleet = Fleet(database)
        open_restaurants(fleet)
        yield fleet
        fleet.close()


def test_any_shift__customers_see_in_the_database_what_the_rule_shows(fleet: Fleet) -> None:
    shown: list[int] = []

    def check(shift: Shift) -> None:
        note(repr(shift))
        shown.append(play_shift(fleet, shift))
        if len(shown) % 500 == 0:
            print(f"{len(shown)} shifts", flush=True)

    try:
        check_each(shifts, CASES, check, PATIENT, FIRST_SEED)
    finally:
        print(f"first seed {FIRST_SEED}: {len(shown)} shifts, {sum(shown)} fixes seen")
    assert sum(shown) > len(shown)
