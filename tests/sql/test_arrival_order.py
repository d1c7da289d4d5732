"""Corners where the order of arrival, or a repetition, could show: it must not."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from doorstep.errors import IdempotencyConflict
from tests.database import Database
from tests.factories import RESTAURANT, Place, make_fix, now, numbered
from tests.sql.fleet import Fleet


def test_ground_distance__there_and_back__the_same_to_the_last_bit(database: Database) -> None:
    draw = random.Random(7)
    for _ in range(200):
        here = (11 + draw.random(), 43 + draw.random())
        there = (here[0] + draw.gauss(0, 1e-3), here[1] + draw.gauss(0, 1e-3))
        both = database.rows(
            "SELECT ground_distance_m(%s, %s, %s, %s) AS go,"
            " ground_distance_m(%s, %s, %s, %s) AS back",
            *here, *there, *there, *here,
        )[0]  # fmt: skip
        assert both["go"] == both["back"]


@pytest.mark.parametrize("arrival", [(0, 1), (1, 0)])
def test_dwell__a_pair_at_the_very_edge_of_its_spread__the_same_whichever_came_first(
    fleet: Fleet, arrival: tuple[int, int]
) -> None:
    at = now() - timedelta(minutes=5)
    order_id = fleet.assigned_order("d1")
    fleet.backdate_assignment(order_id, at - timedelta(minutes=1))
    north = Place(RESTAURANT[0] - 0.00010, RESTAURANT[1] + 0.00008)
    south_lat = RESTAURANT[1] - 0.00005
    # the eastmost place that is within 25 m, found by halving until doubles have no more room
    west, east = RESTAURANT[0] - 0.0001, RESTAURANT[0] + 0.0004
    while (middle := (west + east) / 2) not in (west, east):
        spread_m = fleet.run(
            "SELECT ground_distance_m(%s, %s, %s, %s) AS m", *north, middle, south_lat
        )[0]["m"]
        west, east = (middle, east) if spread_m <= 25 else (west, middle)
    fixes = [
        make_fix("d1", 1, place=north, fix_at=at),
        make_fix("d1", 2, place=Place(west, south_lat), fix_at=at + timedelta(seconds=60)),
    ]
    for n in arrival:
        fleet.record([fixes[n]])
    assert "at_restaurant" in str(fleet.evidence(order_id))


@pytest.mark.parametrize("arrival", [(0, 1, 2, 3), (2, 3, 0, 1), (3, 1, 2, 0)])
def test_state_at__evidence_that_turns_out_to_be_earlier__moves_with_it(
    fleet: Fleet, arrival: tuple[int, ...]
) -> None:
    at = now() - timedelta(minutes=10)
    order_id = fleet.assigned_order("d1")
    fleet.backdate_assignment(order_id, at - timedelta(minutes=1))
    fixes = [
        make_fix("d1", n + 1, place=RESTAURANT, fix_at=at + timedelta(seconds=after_s))
        for n, after_s in enumerate((0, 40, 300, 340))
    ]
    for n in arrival:
        fleet.record([fixes[n]])
    order = fleet.run("SELECT state, state_at FROM orders WHERE order_id = %s", order_id)[0]
    assert (order["state"], order["state_at"]) == ("at_restaurant", at)


def test_identity_by_place__repeated_a_day_later__is_still_a_duplicate(fleet: Fleet) -> None:
    fix = make_fix("d1", None, boot=None, late_s=86_000)
    assert fleet.record([fix]) == []
    again = (*fix[:5], fix[5] + timedelta(seconds=1000), *fix[6:])
    assert [found.outcome for found in fleet.record([again])] == ["duplicate"]
    never_seen = make_fix("d2", None, boot=None, late_s=87_000)
    assert [found.reason for found in fleet.record([never_seen])] == ["too_old"]


def test_decline__repeated_when_another_driver_has_the_order__tells_nothing_of_it(
    fleet: Fleet,
) -> None:
    order_id = fleet.assigned_order("d1")
    first = fleet.command_order(order_id, "decline", actor="driver", actor_id="d1", key="k")
    fleet.command_order(order_id, "assign", driver_id="d2")
    again = fleet.command_order(order_id, "decline", actor="driver", actor_id="d1", key="k")
    assert again == first
    assert again["driver_id"] is None


def test_assign__after_the_clock_was_set_back__opens_a_window_of_its_own(fleet: Fleet) -> None:
    order_id = fleet.assigned_order("d1")
    fleet.backdate_assignment(order_id, now() + timedelta(seconds=30))
    fleet.command_order(order_id, "cancel")
    other_id = fleet.assigned_order("d1")
    assert fleet.state(other_id) == "assigned"


@pytest.mark.parametrize("arrival", [(0, 1), (1, 0)])
def test_copies__one_too_far_ahead_of_its_arrival__the_fix_is_stored_whichever_came_first(
    fleet: Fleet, arrival: tuple[int, int]
) -> None:
    at = now()
    copies = [
        make_fix("d1", 1, fix_at=at, received_at=at - timedelta(seconds=ahead_s))
        for ahead_s in (200, 110)
    ]
    for n in arrival:
        fleet.record([copies[n]])
    boot = fleet.run("SELECT stored::text, rejected::text FROM driver_boot")[0]
    assert boot == {"stored": "{[1,2)}", "rejected": "{}"}
    assert len(fleet.history()) == 1


def test_arriving__fixes_from_before_the_assignment__prove_nothing_when_the_clock_was_set_back(
    fleet: Fleet,
) -> None:
    order_id = fleet.assigned_order("d1")
    assigned_at = now() + timedelta(seconds=60)  # the clock that commands the pick-up is behind
    fleet.backdate_assignment(order_id, assigned_at)
    customer = fleet.run("SELECT lon_deg, lat_deg FROM orders WHERE order_id = %s", order_id)[0]
    door = Place(customer["lon_deg"], customer["lat_deg"])
    fixes = [
        make_fix("d1", seq, place=door, fix_at=assigned_at - timedelta(seconds=50 - 10 * seq))
        for seq in range(1, 5)
    ]
    fleet.record(numbered(fixes))
    fleet.command_order(order_id, "pick_up")
    assert fleet.state(order_id) == "picked_up"


def test_assign__a_repeated_key_for_another_driver__is_refused(fleet: Fleet) -> None:
    order_id = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    fleet.command_order(order_id, "assign", driver_id="d1", key="k")
    again = fleet.command_order(order_id, "assign", driver_id="d1", key="k")
    assert again["driver_id"] == "d1"
    with pytest.raises(IdempotencyConflict):
        fleet.command_order(order_id, "assign", driver_id="d2", key="k")
