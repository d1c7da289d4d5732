"""Orders on recorded traces of real phones and cars: the labelled evidence is found, once, and
nothing else. See docs/explanation/order-independence.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from bench.recordings.labels import LABELS, Label
from bench.recordings.places import nearest_m, place_of
from bench.recordings.traces import read_trace
from ops.stack.postgres import PostgresCluster
from tests.database import cloned_database
from tests.sql.fleet import Fleet
from tests.traces.marks import needs_traces
from tests.traces.orders import LabelledRun, now_ms

pytestmark = needs_traces
ENDS_AT = now_ms()
ARRIVALS = ("at_restaurant", "at_customer")
PASSED_WITHIN_M = 60.0  # the radius of an arrival
ids = [f"{label.trace}: {label.name}" for label in LABELS]
orders = pytest.mark.parametrize("number", range(len(LABELS)), ids=ids)


@pytest.fixture(scope="module")
def arrived(postgres_cluster: PostgresCluster) -> Iterator[LabelledRun]:
    """Every labelled trace, recorded in order of arrival."""
    with cloned_database(postgres_cluster) as database:
        fleet = Fleet(database)
        run = LabelledRun(fleet, LABELS, ENDS_AT)
        run.deliver()
        yield run
        fleet.close()


@pytest.fixture(scope="module")
def final_state(arrived: LabelledRun) -> dict[str, Any]:
    return arrived.final_state()


@orders
def test_labelled_trace__in_arrival_order__proves_exactly_the_expected(
    arrived: LabelledRun, number: int
) -> None:
    order = arrived.orders[number]
    found = arrived.found(order)
    assert found.keys() == order.label.expected.keys() | order.label.false_arrivals.keys()
    outside = {
        state: (found[state], window)
        for state, window in order.label.expected.items()
        if not window[0] <= found[state] <= window[1]
    }
    assert not outside


@orders
def test_labelled_trace__in_arrival_order__shows_each_state_once(
    arrived: LabelledRun, number: int
) -> None:
    order = arrived.orders[number]
    shown = arrived.gps_events(order)
    assert len(shown) == len(set(shown))
    assert set(shown) == arrived.found(order).keys()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_labelled_traces__shuffled__end_in_the_same_state(
    postgres_cluster: PostgresCluster, final_state: dict[str, Any], seed: int
) -> None:
    with cloned_database(postgres_cluster) as database:
        # Instants of arrival that jump back and forth have no rate: the quota is out of the way.
        database.rows("UPDATE doorstep.limits SET quota_burst = 1000000")
        fleet = Fleet(database)
        run = LabelledRun(fleet, LABELS, ENDS_AT)
        run.deliver(random.Random(seed))
        assert run.final_state() == final_state
        fleet.close()


@pytest.mark.parametrize("label", LABELS, ids=ids)
def test_label__passed_place__is_near_the_track(label: Label) -> None:
    """A drive-by far from the track would prove nothing about the rule."""
    trace = read_trace(label.trace)
    positions = {"at_restaurant": label.restaurant, "at_customer": label.customer}
    for passed in label.passed:
        place = place_of(trace, positions[passed])
        assert nearest_m(trace, place, label.assigned_s) < PASSED_WITHIN_M


def test_labels__cover_all_recordings_and_kinds_of_places() -> None:
    expected = [state for label in LABELS for state in label.expected if state in ARRIVALS]
    passed = [place for label in LABELS for place in label.passed]
    traces = {label.trace.partition("/")[0] for label in LABELS if label.expected}
    assert len(expected) >= 40
    assert len(passed) >= 25
    assert traces == {"phones", "goal", "munich"}


def test_labels__known_errors_of_the_rule__are_few() -> None:
    assert sum(len(label.missed) for label in LABELS) == 4
    assert sum("at_restaurant" in label.false_arrivals for label in LABELS) == 1
