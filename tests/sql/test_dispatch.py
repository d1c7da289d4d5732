"""What dispatchers read: couriers ranked for an order, an order's timeline, states of then."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from doorstep import errors
from doorstep.store.error_mapping import translated
from sql import query
from tests.factories import CUSTOMER, RESTAURANT, make_fix, now
from tests.sql.fleet import Fleet, connect_as

DISPATCH = "queries/dispatch.sql"


def read(fleet: Fleet, name: str, **parameters: Any) -> list[dict[str, Any]]:
    """Read as tracking_api does."""
    with (
        connect_as(fleet.database, "tracking_api") as conn,
        translated(),
        conn.cursor(row_factory=dict_row) as cursor,
    ):
        return cursor.execute(query(name, DISPATCH), parameters).fetchall()  # type: ignore[arg-type]


def couriers(fleet: Fleet, order_id: UUID, limit: int = 10) -> list[tuple[str, int, bool]]:
    rows = read(fleet, "read_order_couriers", order_id=order_id, limit=limit)
    return [(one["driver_id"], one["open_orders"], one["is_current"]) for one in rows]


def confirmed_order(fleet: Fleet) -> UUID:
    order_id: UUID = fleet.create_order(who="anna")["order_id"]
    fleet.command_order(order_id, "confirm", actor_id="anna")
    return order_id


def test_couriers__available_ones__come_nearest_first_with_their_distance(fleet: Fleet) -> None:
    fleet.record([make_fix("d1", place=RESTAURANT.north(900))])
    fleet.record([make_fix("d2", place=RESTAURANT.north(200))])
    order_id = confirmed_order(fleet)
    assert couriers(fleet, order_id) == [("d2", 0, False), ("d1", 0, False)]
    assert couriers(fleet, order_id, limit=1) == [("d2", 0, False)]
    [nearest, _] = read(fleet, "read_order_couriers", order_id=order_id, limit=10)
    assert nearest["distance_m"] == pytest.approx(200, abs=1)
    assert (nearest["pickup_lon_deg"], nearest["pickup_lat_deg"]) == RESTAURANT


def test_couriers__off_duty_or_silent_or_full__are_left_out(fleet: Fleet) -> None:
    for driver_id in ("d1", "d2"):
        fleet.record([make_fix(driver_id, place=RESTAURANT.north(200))])
    order_id = confirmed_order(fleet)
    fleet.command_driver("d2", "off_duty")
    assert couriers(fleet, order_id) == [("d1", 0, False)]
    fleet.run("UPDATE limits SET nearest_max_age_s = -1")
    assert couriers(fleet, order_id) == []


def test_couriers__the_current_one__is_marked_and_one_with_another_order_is_full(
    fleet: Fleet,
) -> None:
    for driver_id in ("d1", "d2"):
        fleet.record([make_fix(driver_id, place=RESTAURANT.north(200))])
    fleet.run("UPDATE limits SET max_open_orders = 1")
    order_id = fleet.assigned_order("d1")
    fleet.assigned_order("d2")
    assert couriers(fleet, order_id) == [("d1", 1, True)]
    fleet.run("UPDATE limits SET max_open_orders = 2")
    assert couriers(fleet, order_id) == [("d1", 1, True), ("d2", 1, False)]


MANY_BUSY = """
WITH made AS (
    INSERT INTO orders (restaurant_id, lon_deg, lat_deg, policy_id)
    SELECT 1, 11.25, 43.77, 1 FROM generate_series(1, 5000) RETURNING order_id
),
numbered AS (SELECT order_id, row_number() OVER () AS n FROM made)
INSERT INTO assignment (order_id, assignment_no, driver_id, assigned_at, policy_id, stop_no,
    restaurant_lon_deg, restaurant_lat_deg, customer_lon_deg, customer_lat_deg)
SELECT order_id, 1, 'many' || n, now(), 1, 1, 11.25, 43.77, 11.26, 43.78 FROM numbered
"""
PLACED = """
WITH placed AS (
    UPDATE driver_state s SET duty = 'on_duty', state = 'to_restaurant', order_id = a.order_id,
        boot = 'b', seq = 1, fix_at = now(), received_at = now(),
        lon_deg = 11.15 + random() * 0.2, lat_deg = 43.72 + random() * 0.1
    FROM assignment a WHERE a.driver_id = s.driver_id AND s.driver_id ^@ 'many'
    RETURNING s.driver_id, s.lon_deg, s.lat_deg
)
INSERT INTO driver_cell (driver_id, cell)
SELECT driver_id, cell_of(lon_deg, lat_deg) FROM placed
"""
ROWS_READ = """
SELECT sum(seq_tup_read + idx_tup_fetch)::int AS rows FROM pg_stat_xact_user_tables
WHERE relname IN ('assignment', 'driver_state', 'driver', 'driver_cell', 'orders')
"""


def test_couriers__of_thousands_with_orders__reads_the_few_that_are_near(fleet: Fleet) -> None:
    fleet.run("VACUUM ANALYZE")
    order_id = fleet.assigned_order("d1")
    of_order = "SELECT driver_id FROM order_couriers_v1(%s, 10)"
    fleet.run(of_order, order_id)  # the plan is made
    fleet.add_drivers(*(f"many{n}" for n in range(1, 5001)), on_duty=False)
    with psycopg.connect(fleet.database.superuser_url, autocommit=True) as conn:
        conn.execute("SET search_path = doorstep, public")
        conn.execute("SET session_replication_role = replica")  # without triggers
        conn.execute(MANY_BUSY)
        conn.execute(PLACED)
    with fleet.conn.transaction():
        [before] = fleet.run(ROWS_READ)
        found = fleet.run(of_order, order_id)
        [after] = fleet.run(ROWS_READ)
    assert len(found) == 10
    assert after["rows"] - before["rows"] < 1000


def test_couriers__of_an_unknown_order__are_refused(fleet: Fleet) -> None:
    with pytest.raises(errors.UnknownOrder):
        couriers(fleet, uuid4())


def test_timeline__of_an_order__names_who_did_what_in_order(fleet: Fleet) -> None:
    fleet.record([make_fix("d1", place=RESTAURANT.north(200))])
    order_id = confirmed_order(fleet)
    fleet.offer_order(order_id, "d1", name="bruno")
    fleet.command_order(order_id, "assign", actor_id="anna", driver_id="d1")
    fleet.run(
        "SELECT record_audit_v1('anna', 'POST /orders/{order_id}/link', %s, NULL)", str(order_id)
    )
    fleet.command_order(order_id, "cancel", actor="customer", actor_id="customer")
    entries = read(fleet, "read_order_timeline", order_id=order_id)
    told = [(one["kind"], one["what"], one["who"], one["driver_id"]) for one in entries]
    assert told == [
        ("command", "create", "anna", None),
        ("command", "confirm", "anna", None),
        ("offer", "offered", "bruno", "d1"),
        ("command", "assign", "anna", "d1"),
        ("offer", "withdrawn", None, "d1"),
        ("link", "replaced", "anna", None),
        ("command", "cancel", "customer", None),
    ]
    assert [one["occurred_at"] for one in entries] == sorted(one["occurred_at"] for one in entries)


def test_timeline__evidence_of_gps__names_the_state_and_the_driver(fleet: Fleet) -> None:
    order_id = fleet.assigned_order("d1")
    start_at = now() - timedelta(minutes=5)
    fleet.backdate_assignment(order_id, start_at)
    fixes = [
        make_fix("d1", seq, place=RESTAURANT, fix_at=start_at + timedelta(seconds=60 * seq))
        for seq in (1, 2)
    ]
    fleet.record(fixes)
    [evidence] = [
        one
        for one in read(fleet, "read_order_timeline", order_id=order_id)
        if one["kind"] == "evidence"
    ]
    assert (evidence["what"], evidence["driver_id"], evidence["who"]) == (
        "at_restaurant",
        "d1",
        None,
    )


def states(fleet: Fleet, from_at: datetime, to_at: datetime, *ids: str) -> list[tuple[str, str]]:
    rows = read(fleet, "read_driver_states", driver_ids=list(ids), from_at=from_at, to_at=to_at)
    return [(one["driver_id"], one["state"]) for one in rows]


def test_states__of_a_day__follow_duty_and_assignment_from_the_last_before_the_range(
    fleet: Fleet,
) -> None:
    hour = timedelta(hours=1)
    order_id = fleet.assigned_order("d1")
    assigned_at = now()
    fleet.command_order(order_id, "pick_up")
    fleet.command_order(order_id, "deliver")
    fleet.command_driver("d2", "on_break")
    assert states(fleet, now() - hour, now() + hour, "d1", "d2") == [
        ("d1", "available"),
        ("d1", "to_restaurant"),
        ("d1", "to_customer"),
        ("d1", "available"),
        ("d2", "available"),
        ("d2", "on_break"),
    ]
    assert states(fleet, assigned_at, now() + hour, "d1")[0] == ("d1", "to_restaurant")
    assert states(fleet, now(), now() + hour, "d1", "d2") == [
        ("d1", "available"),
        ("d2", "on_break"),
    ]
    assert states(fleet, now() - 2 * hour, now() - hour, "d1") == []


def test_functions__for_customers__are_forbidden(fleet: Fleet) -> None:
    order_id = fleet.create_order(customer=CUSTOMER)["order_id"]
    with (
        connect_as(fleet.database, "customer") as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute("SELECT * FROM doorstep.order_timeline_v1(%s)", (order_id,))
