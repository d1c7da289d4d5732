"""The job that makes offers, with many orders that are due: bounded, fair, and the same choice."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest

from doorstep.store.offers import advance_offers
from tests.factories import CUSTOMER, RESTAURANT, Place, make_fix, numbered
from tests.sql.fleet import Fleet
from tests.sql.test_offers import confirmed_order, offers, unassigned

MANY = 60  # more than the job takes without a pass over the fleet
ADD_ORDERS = """
INSERT INTO orders (restaurant_id, lon_deg, lat_deg, policy_id)
SELECT 1, %s, %s, %s FROM generate_series(1, %s) RETURNING order_id
"""
CONFIRM = """
UPDATE orders SET state = 'confirmed', state_at = now() - interval '1 h' + n * interval '1 s'
FROM unnest(%s::uuid[]) WITH ORDINALITY AS k (id, n) WHERE order_id = k.id
"""
DRIVERS = ["driver_state", "driver_cell"]
ORDERS = ["orders", "order_offer", "unassigned_order", "policy", "assignment"]
# A search of the whole city for each order, as the job does for a few
BY_SEARCH = "SELECT order_offer__next_driver(o) AS driver_id FROM orders o WHERE order_id = %s"
BY_PASS = """
SELECT order_offer__next_driver(o, c.available, c.with_orders) AS driver_id
FROM orders o, order_offer__couriers_with_room() c WHERE order_id = %s
"""
# Stands in for what one order costs on a slow machine
SLOW = """
CREATE OR REPLACE FUNCTION order_offer__continue(
    of_order_id uuid, available courier_place[] DEFAULT NULL,
    with_orders courier_place[] DEFAULT NULL
)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.3);
    INSERT INTO unassigned_order (order_id, since, checked_at)
    VALUES (of_order_id, clock_timestamp(), clock_timestamp())
    ON CONFLICT (order_id) DO UPDATE SET checked_at = excluded.checked_at;
END
$$
"""


def add_orders(fleet: Fleet, count: int) -> list[UUID]:
    """Add confirmed orders with automatic offers; each was confirmed 1 s after the one before."""
    [made] = fleet.run('SELECT create_policy_v1(\'{"name": "x", "auto_offer": true}\') AS id')
    rows = fleet.run(ADD_ORDERS, *CUSTOMER, made["id"], count)
    orders = [row["order_id"] for row in rows]
    fleet.run(CONFIRM, orders)
    return orders


def advance(fleet: Fleet, at_most: int = 1000) -> int:
    with fleet.database.connect("driver_events") as conn:
        return advance_offers(conn, at_most)


def turn_back(fleet: Fleet, seconds: float) -> None:
    """Let time pass since drivers were looked for."""
    fleet.run("UPDATE unassigned_order SET checked_at = checked_at - %s * interval '1 s'", seconds)


def by_last_try(fleet: Fleet) -> list[UUID]:
    rows = fleet.run("SELECT order_id FROM unassigned_order ORDER BY checked_at")
    return [row["order_id"] for row in rows]


def test_job__with_more_orders_than_it_takes__takes_those_due_longest(fleet: Fleet) -> None:
    orders = add_orders(fleet, 12)
    for done in (4, 8, 12):
        assert advance(fleet, 4) == 4
        assert by_last_try(fleet) == orders[:done]
    assert advance(fleet, 4) == 0
    turn_back(fleet, 11)
    newer = add_orders(fleet, 4)
    fleet.run("UPDATE orders SET state_at = clock_timestamp() WHERE order_id = ANY (%s)", newer)
    for done in (4, 8, 12):
        assert advance(fleet, 4) == 4
        assert set(by_last_try(fleet)[-4:]) == set(orders[done - 4 : done])
    assert advance(fleet, 4) == 4
    assert set(by_last_try(fleet)[-4:]) == set(newer)


def test_job__that_has_taken_250_ms__ends_and_goes_on_with_the_next(fleet: Fleet) -> None:
    orders = add_orders(fleet, 3)
    fleet.run(SLOW)
    for done in (1, 2, 3):
        assert advance(fleet) == 1
        assert by_last_try(fleet) == orders[:done]
    assert advance(fleet) == 0


def test_job__with_many_orders__reads_the_fleet_once_and_not_for_each(fleet: Fleet) -> None:
    names = [f"n{k}" for k in range(MANY)]
    fleet.add_drivers(*names)
    fleet.record(numbered([make_fix(name, place=RESTAURANT) for name in names]))
    fleet.run("UPDATE driver_state SET state = 'on_break', duty = 'on_break'")
    orders = add_orders(fleet, MANY)
    with fleet.conn.transaction():
        before = rows_read(fleet, DRIVERS)
        assert advance_offers(fleet.conn, 1000) == MANY
        read = rows_read(fleet, DRIVERS) - before
    assert sorted(unassigned(fleet)) == sorted(orders)
    assert read <= 2 * (MANY + 2)  # for those without an order, and for those with


def test_job__plans_from_when_all_was_empty__look_each_order_up_by_key(fleet: Fleet) -> None:
    fleet.run("VACUUM ANALYZE")
    assert advance_offers(fleet.conn, 1000) == 0  # plans are made
    add_orders(fleet, MANY)
    assert advance_offers(fleet.conn, 1000) == MANY
    for due in (0, MANY):
        with fleet.conn.transaction():
            before = rows_read(fleet, ORDERS)
            assert advance_offers(fleet.conn, 1000) == due
            read = rows_read(fleet, ORDERS) - before
        assert read <= 20 * MANY  # each with each other would be 60 times
        turn_back(fleet, 11)


def rows_read(fleet: Fleet, tables: list[str]) -> int:
    """How many rows of some tables this transaction has read."""
    [row] = fleet.run(
        "SELECT sum(seq_tup_read + idx_tup_fetch)::int AS count FROM pg_stat_xact_user_tables"
        " WHERE relname = ANY (%s)",
        tables,
    )
    return int(row["count"])


@pytest.mark.parametrize("seed", range(3))
def test_next_driver__by_a_pass_over_the_fleet__is_that_of_a_search(
    fleet: Fleet, seed: int
) -> None:
    fleet.limit_orders(2)
    chosen = random.Random(seed)
    names = [f"n{k}" for k in range(14)]
    fleet.add_drivers(*names)
    fleet.record(
        numbered(
            [make_fix(name, place=RESTAURANT.north(chosen.uniform(-3000, 3000))) for name in names]
        )
    )
    for k, name in enumerate(names[:10]):  # with one order, the last ones with two
        for _ in range(1 + (k >= 7)):
            door = RESTAURANT.north(chosen.uniform(-4000, 4000))
            fleet.assigned_order(name, customer=door)
    order_id = confirmed_order(fleet)
    found: list[Any] = []
    for _ in range(len(names) + 1):
        by_search, by_pass = fleet.run(BY_SEARCH, order_id), fleet.run(BY_PASS, order_id)
        assert by_search == by_pass
        found.append(by_search[0]["driver_id"])
        if found[-1] is None:
            break
        fleet.offer_order(order_id, found[-1])
        fleet.expire_offer(order_id)
    assert len(found) == 12  # four free, seven with one order, then none
    assert set(found[:4]) == set(names[10:])
    assert set(found[4:11]) == set(names[:7])


def test_next_driver__after_the_nearest_20_with_orders_declined__is_the_next(fleet: Fleet) -> None:
    fleet.limit_orders(2)
    names = [f"n{k:02}" for k in range(21)]
    fleet.add_drivers(*names)
    places = [RESTAURANT.north(100 * k) for k in range(21)]
    fixes = [make_fix(name, place=place) for name, place in zip(names, places, strict=True)]
    fleet.record(numbered(fixes))
    for name in names:
        fleet.assigned_order(name)
    order_id = confirmed_order(fleet)
    fleet.run(
        "INSERT INTO order_offer (order_id, driver_id, offered_at, expires_at, ended_at, outcome)"
        " SELECT %s, unnest(%s::text[]), now() - interval '2 min', now(), now(), 'declined'",
        *(order_id, names[:20]),
    )
    assert fleet.run(BY_SEARCH, order_id) == [{"driver_id": "n20"}]
    assert fleet.run(BY_PASS, order_id) == [{"driver_id": "n20"}]


def test_job__with_many_orders_and_a_courier_who_comes_free__offers_at_the_next_try(
    fleet: Fleet,
) -> None:
    orders = add_orders(fleet, MANY)
    assert advance(fleet) == MANY
    fleet.record([make_fix("d1", place=Place(11.26, 43.77))])
    assert advance(fleet) == 0
    turn_back(fleet, 11)
    assert advance(fleet) == MANY
    assert [offers(fleet, order_id) for order_id in orders] == [[("d1", None)]] * MANY
    assert unassigned(fleet) == []
