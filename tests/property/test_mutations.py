"""The comparison with the model is no formality: it finds a database that is broken on purpose.

`python -m tests.property.mutations` tries all of them. Here are those that take the longest to
find, each with the smallest case that shows it, and some that are found soon.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops.stack.postgres import PostgresCluster
from tests.database import cloned_database
from tests.property.fleet import Fleet
from tests.property.mutation_catalog import MUTATIONS, Mutation
from tests.property.mutations import broken, run
from tests.property.play import Difference, play
from tests.property.steps import Case, Command, Deliver, Leg, Overtake, Reorder

BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}
# Confirmed, then assigned to driver 0, then picked up; the same of a second order behind it
NEXT = Command("next", 0, 0, "staff", 0)
BEHIND = Command("next", 1, 0, "staff", 0, stop_no=2)
CUSTOMERS = ((1000, False), (1000, False))


def at_restaurant(start: int) -> tuple[Leg, ...]:
    """Two fixes of driver 0 at the restaurant, which prove the arrival at a tick."""
    return (Leg(driver=0, boot=0, metres=0, start=start, count=2, every=3, flavour="plain"),)


# What each of these breaks is seen in this case.
SMALLEST = {
    # Each batch has half of a pair, and the second began before the first was committed.
    "stale read: evidence sees the history as it was when the transaction began": Case(
        at_restaurant(1), CUSTOMERS[:1], (NEXT, NEXT, Overtake((0,), (1,)))
    ),
    # The phone's clock is ahead: 30 s after the assignment it has proved an arrival at 60 s, and
    # then the assignment ends, so that the arrival is after its end.
    "a closed assignment keeps what counted before": Case(
        at_restaurant(6),
        CUSTOMERS[:1],
        (NEXT, NEXT, Deliver((0, 1), 100), Command("cancel", 0, 0, "staff", 3)),
    ),
    "a closed assignment keeps what the newest fix proved after its end": Case(
        at_restaurant(6),
        CUSTOMERS[:1],
        (NEXT, NEXT, Deliver((0, 1), 100), Command("reassign", 0, 1, "staff", 3)),
    ),
    # The order behind the cancelled one becomes the next stop.
    "stops: cancel forgets to open the next range": Case(
        at_restaurant(1),
        CUSTOMERS,
        (NEXT, NEXT, BEHIND, BEHIND, Command("cancel", 0, 0, "staff", 1)),
    ),
    # Of two orders the first is picked up, and is then to come behind the other: refused.
    "stops: what is picked up moves behind what is not": Case(
        at_restaurant(1), CUSTOMERS, (NEXT, NEXT, BEHIND, BEHIND, NEXT, Reorder(0, 1, 1))
    ),
    # A fix with the customer in each of two ranges, while another order was the next stop between.
    "stops: with the customer, fixes of two ranges make a pair": Case(
        (Leg(driver=0, boot=0, metres=1000, start=3, count=2, every=3, flavour="plain"),),
        CUSTOMERS,
        (*(NEXT, NEXT, BEHIND, BEHIND, NEXT, BEHIND), Reorder(0, 1, 4), Reorder(0, 1, 1)),
    ),
    # The way to the first customer passes the second one's door, so the new stop goes before.
    "stops: a new stop goes to the end": Case(
        at_restaurant(1),
        ((1000, False), (30, False)),
        (NEXT, NEXT, *(replace(BEHIND, stop_no=0),) * 2),
    ),
}
SOON = [
    mutation
    for mutation in MUTATIONS
    if mutation.name.startswith(("stops: ", "customers: ")) and mutation.name not in SMALLEST
]


def test_smallest_cases__database_as_it_is__end_as_in_the_model(
    postgres_cluster: PostgresCluster,
) -> None:
    with cloned_database(postgres_cluster) as database:
        fleet = Fleet(database)
        try:
            for case in SMALLEST.values():
                play(fleet, case)
        finally:
            fleet.close()


@pytest.mark.parametrize("name", SMALLEST)
def test_smallest_case__database_broken__differs(
    postgres_cluster: PostgresCluster, name: str
) -> None:
    with cloned_database(postgres_cluster) as database:
        fleet = Fleet(database)
        try:
            broken(BY_NAME[name], fleet)
            with pytest.raises(Difference):
                play(fleet, SMALLEST[name])
        finally:
            fleet.close()


@pytest.mark.parametrize("mutation", SOON, ids=lambda mutation: mutation.name)
def test_drawn_cases__database_broken__differ_soon(
    postgres_cluster: PostgresCluster, mutation: Mutation
) -> None:
    trial = run(postgres_cluster, mutation, 30)
    assert trial.found
