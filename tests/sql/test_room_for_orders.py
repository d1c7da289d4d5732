"""Couriers who have orders and room for another: found as nearest, offered orders, accepting."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest

from doorstep import errors
from doorstep.credentials import token_sha256
from doorstep.geo import distance_m
from tests.factories import RESTAURANT, Place, make_fix, numbered
from tests.sql.fleet import Fleet
from tests.sql.test_offers import (
    accept,
    advance,
    at_once,
    confirmed_order,
    decline,
    offers,
    unassigned,
)

SOUTH, NORTH = RESTAURANT.north(-200), RESTAURANT.north(900)


@pytest.fixture
def couriers(fleet: Fleet) -> Fleet:
    """d1 south of the restaurant, on the way south; d2 north of it, on the way north.

    An order to the north is no detour for d2. Both have room for one more order.
    """
    fleet.limit_orders(2)
    for driver_id, place, customer in (
        ("d1", SOUTH, RESTAURANT.north(-2000)),
        ("d2", NORTH, RESTAURANT.north(2000)),
    ):
        fleet.record([make_fix(driver_id, place=place)])
        fleet.add_token(driver_id)
        fleet.assigned_order(driver_id, customer=customer)
    return fleet


def order_to_the_north(fleet: Fleet, **policy: Any) -> UUID:
    order_id = confirmed_order(fleet, **policy)
    door = RESTAURANT.north(1900)
    fleet.run(
        "UPDATE orders SET lon_deg = %s, lat_deg = %s WHERE order_id = %s",
        *(door.lon_deg, door.lat_deg, order_id),
    )
    return order_id


def near(fleet: Fleet, *, with_orders: bool, at_most: int = 10) -> dict[str, int]:
    rows = fleet.run(
        "SELECT driver_id, open_orders FROM nearest_drivers_v2(%s, %s, %s, %s)",
        *(*RESTAURANT, at_most, with_orders),
    )
    return {row["driver_id"]: row["open_orders"] for row in rows}


def stops(fleet: Fleet, driver_id: str) -> list[UUID]:
    [row] = fleet.run("SELECT driver_stops__of(%s) AS stops", driver_id)
    found: list[UUID] = row["stops"]
    return found


def test_nearest__with_orders__are_those_on_duty_below_the_limit(couriers: Fleet) -> None:
    couriers.add_drivers("free")
    couriers.record([make_fix("free", place=RESTAURANT.north(500))])
    assert near(couriers, with_orders=False) == {"free": 0}
    assert list(near(couriers, with_orders=True).items()) == [("d1", 1), ("free", 0), ("d2", 1)]
    assert near(couriers, with_orders=True, at_most=1) == {"d1": 1}
    couriers.assigned_order("d1")
    assert near(couriers, with_orders=True) == {"free": 0, "d2": 1}
    couriers.run("UPDATE driver_state SET duty = 'on_break' WHERE driver_id = 'd2'")
    assert near(couriers, with_orders=True) == {"free": 0}


def test_nearest__with_orders__by_the_cells_are_those_by_all_distances(fleet: Fleet) -> None:
    fleet.limit_orders(2)
    chosen = random.Random(7)
    names = [f"n{k}" for k in range(24)]
    fleet.add_drivers(*names)
    reach_deg = [10 ** chosen.uniform(-4, -0.7) for _ in names]
    places = {
        name: Place(11.26 + chosen.uniform(-r, r), 43.77 + chosen.uniform(-r, r))
        for name, r in zip(names, reach_deg, strict=True)
    }
    fleet.record(numbered([make_fix(name, place=place) for name, place in places.items()]))
    counts = {name: chosen.choice((0, 0, 1, 2)) for name in names}
    for name, count in counts.items():
        for _ in range(count):
            fleet.assigned_order(name)
    start = (11.2599, 43.7699)
    by_all = sorted(
        (one for one in names if counts[one] < 2), key=lambda one: distance_m(places[one], start)
    )
    for at_most in (1, 5, 24):
        rows = fleet.run(
            "SELECT driver_id FROM nearest_drivers_v2(%s, %s, %s, true)", *start, at_most
        )
        assert [row["driver_id"] for row in rows] == by_all[:at_most]


def test_offer__no_driver_is_available__goes_to_the_least_detour_of_those_with_room(
    couriers: Fleet,
) -> None:
    order_id = order_to_the_north(couriers)
    assert couriers.offer_order(order_id)["driver_id"] == "d2"
    decline(couriers, "d2", order_id)
    assert couriers.offer_order(order_id)["driver_id"] == "d1"
    decline(couriers, "d1", order_id)
    with pytest.raises(errors.NoDriverAvailable):
        couriers.offer_order(order_id)


def test_auto_offer__available_driver_declines__goes_on_to_those_with_room_then_is_unassigned(
    couriers: Fleet,
) -> None:
    couriers.add_drivers("free")
    couriers.add_token("free")
    couriers.record([make_fix("free", place=RESTAURANT.north(3000))])
    order_id = order_to_the_north(couriers, auto=True)
    advance(couriers)
    for driver_id in ("free", "d2", "d1"):
        assert offers(couriers, order_id)[-1] == (driver_id, None)
        assert unassigned(couriers) == []
        decline(couriers, driver_id, order_id)
    assert unassigned(couriers) == [order_id]


def test_auto_offer__all_at_the_limit__waits_until_one_has_room(couriers: Fleet) -> None:
    couriers.limit_orders(1)
    order_id = order_to_the_north(couriers, auto=True)
    advance(couriers)
    assert (offers(couriers, order_id), unassigned(couriers)) == ([], [order_id])
    couriers.limit_orders(2)
    couriers.run("UPDATE unassigned_order SET checked_at = now() - interval '11 s'")
    advance(couriers)
    assert (offers(couriers, order_id), unassigned(couriers)) == ([("d2", None)], [])


def test_offer__to_a_driver_with_an_order__is_read_without_a_place_of_the_customer(
    couriers: Fleet,
) -> None:
    order_id = order_to_the_north(couriers)
    couriers.offer_order(order_id)
    [row] = couriers.run("SELECT * FROM driver_read_v2(%s)", token_sha256("d2"))
    [seen] = row["offers"]
    assert seen["order_id"] == str(order_id)
    assert set(seen) == {
        *("order_id", "restaurant", "pickup_distance_m", "offered_at", "expires_at")
    }
    assert str(order_id) not in str(row["current_order"])


def test_accept__with_an_order_and_room__becomes_the_stop_of_the_least_detour(
    couriers: Fleet,
) -> None:
    [first] = stops(couriers, "d2")
    order_id = order_to_the_north(couriers)
    couriers.offer_order(order_id)
    assert accept(couriers, "d2", order_id)["state"] == "assigned"
    assert stops(couriers, "d2") == [order_id, first]  # its door comes first on the way
    assert offers(couriers, order_id) == [("d2", "accepted")]


def test_accept__the_room_was_taken_since__is_refused_and_the_job_withdraws_the_offer(
    couriers: Fleet,
) -> None:
    order_id = order_to_the_north(couriers, auto=True)
    advance(couriers)
    couriers.assigned_order("d2")
    with pytest.raises(errors.DriverUnavailable):
        accept(couriers, "d2", order_id)
    advance(couriers)
    assert offers(couriers, order_id) == [("d2", "withdrawn"), ("d1", None)]


@pytest.mark.parametrize("turn", range(3))
def test_two_accepts_at_once__with_one_order_and_room_for_one_more__one_wins(
    couriers: Fleet, turn: int
) -> None:
    orders = [order_to_the_north(couriers) for _ in range(2)]
    for order_id in orders:
        couriers.offer_order(order_id, "d2")
    found = at_once(*(lambda one=one: accept(couriers, "d2", one)["state"] for one in orders))
    assert sorted(found) == ["DriverUnavailable", "assigned"], turn
    assert len(stops(couriers, "d2")) == 2


def test_offer__driver_with_room_is_far_away__is_not_made(couriers: Fleet) -> None:
    couriers.run("UPDATE limits SET nearest_max_m = 100")
    order_id = order_to_the_north(couriers)
    with pytest.raises(errors.NoDriverAvailable):
        couriers.offer_order(order_id)
