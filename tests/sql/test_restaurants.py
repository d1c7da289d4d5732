"""What a restaurant's staff see and do: their own orders, and a courier between assignment and
pick-up only."""

from __future__ import annotations

import secrets
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from doorstep import errors
from doorstep.store import admin
from doorstep.store.error_mapping import translated
from doorstep.store.people import StaffMember, change_staff, list_staff
from sql import query
from tests.factories import AWAY, RESTAURANT, make_fix, now
from tests.sql.fleet import Fleet, connect_as

WHO = "admin"
COURIER = ("courier_name", "assigned_at", "driver_id", "fix_at", "lon_deg", "lat_deg")
SHOWN_AFTER_S = 1.6  # fixes dated less than 1.5 s after the assignment are not shown


def add_member(fleet: Fleet, name: str = "mario", restaurant_id: int | None = 1) -> bytes:
    """Add a member of a restaurant's staff, and return the hash of the token."""
    token = secrets.token_bytes(32)
    change_staff(
        fleet.conn,
        name,
        "add",
        who=WHO,
        role="restaurant",
        restaurant_id=restaurant_id,
        token_sha256=token,
        expires_at=now() + timedelta(days=1),
    )
    return token


def call(fleet: Fleet, statement: str, *parameters: object) -> list[dict[str, Any]]:
    """Run a statement as tracking_api."""
    with (
        connect_as(fleet.database, "tracking_api") as conn,
        translated(),
        conn.cursor(row_factory=dict_row) as cursor,
    ):
        return cursor.execute(statement, parameters).fetchall()


def orders_of(fleet: Fleet, token: bytes) -> list[dict[str, Any]]:
    return call(fleet, "SELECT * FROM restaurant_orders_v1(%s, NULL, 7200, 100)", token)


def courier_of(fleet: Fleet, token: bytes) -> list[Any]:
    [order] = orders_of(fleet, token)
    return [order[name] for name in COURIER if order[name] is not None]


def confirm(fleet: Fleet, token: bytes, order_id: UUID, key: str | None = None) -> None:
    call(fleet, "SELECT restaurant_confirm_v1(%s, %s, %s)", token, order_id, key)


def set_ready(fleet: Fleet, token: bytes, order_id: UUID, ready_at: Any) -> None:
    call(fleet, "SELECT restaurant_set_ready_v1(%s, %s, %s)", token, order_id, ready_at)


def add_other_restaurant(fleet: Fleet) -> None:
    other = admin.NewRestaurant(2, "Trattoria", RESTAURANT.lon_deg, RESTAURANT.lat_deg)
    admin.register_restaurants(fleet.conn, [admin.NewRestaurant(1, "Da Mario", *RESTAURANT), other])


def test_orders__of_another_restaurant__are_neither_seen_nor_commanded(fleet: Fleet) -> None:
    add_other_restaurant(fleet)
    mario, other = add_member(fleet), add_member(fleet, "nadia", 2)
    order_id = fleet.create_order()["order_id"]
    assert [one["order_id"] for one in orders_of(fleet, mario)] == [order_id]
    assert orders_of(fleet, other) == []
    assert call(fleet, "SELECT * FROM restaurant_orders_v1(%s, %s, 0, 9)", other, order_id) == []
    for command in (
        lambda: confirm(fleet, other, order_id),
        lambda: set_ready(fleet, other, order_id, now()),
    ):
        with pytest.raises(errors.UnknownOrder):
            command()
    assert fleet.state(order_id) == "created"


def test_confirm__own_order__is_a_command_of_the_member(fleet: Fleet) -> None:
    mario = add_member(fleet)
    order_id = fleet.create_order()["order_id"]
    confirm(fleet, mario, order_id, "k")
    confirm(fleet, mario, order_id, "k")  # a repeat
    assert fleet.state(order_id) == "confirmed"
    rows = fleet.run("SELECT command::text, actor::text, actor_id FROM order_command")
    assert rows == [{"command": "confirm", "actor": "staff", "actor_id": "mario"}]
    assert fleet.run("SELECT who FROM audit WHERE action = 'order.confirm'") == [{"who": "mario"}]
    with pytest.raises(errors.IllegalTransition):
        confirm(fleet, mario, order_id, "another")


def test_courier__is_seen_between_assignment_and_pick_up_only(fleet: Fleet) -> None:
    mario = add_member(fleet)
    order_id = fleet.create_order()["order_id"]
    fleet.record([make_fix("d1", 1, place=AWAY)])
    confirm(fleet, mario, order_id)
    assert courier_of(fleet, mario) == []
    fleet.command_order(order_id, "assign", driver_id="d1")
    [order] = orders_of(fleet, mario)
    assert (order["courier_name"], order["driver_id"]) == ("d1", "d1")
    assert order["fix_at"] is None  # the fix is from before the assignment
    time.sleep(SHOWN_AFTER_S)
    fleet.record([make_fix("d1", 2, place=AWAY)])
    [order] = orders_of(fleet, mario)
    assert (order["lon_deg"], order["lat_deg"]) == tuple(AWAY)
    fleet.command_order(order_id, "pick_up")
    fleet.record([make_fix("d1", 3, place=AWAY)])
    [order] = orders_of(fleet, mario)
    assert (order["state"], order["picked_up_at"] is None) == ("picked_up", False)
    assert [order[name] for name in COURIER] == [None] * len(COURIER)


@pytest.mark.parametrize("command", ["decline", "cancel", "deliver", "fail"])
def test_courier__after_the_assignment_has_ended__is_not_seen(fleet: Fleet, command: str) -> None:
    mario = add_member(fleet)
    order_id = fleet.assigned_order()
    assert courier_of(fleet, mario) != []
    if command in ("deliver", "fail"):
        fleet.command_order(order_id, "pick_up")
    is_decline = command == "decline"
    fleet.command_order(
        order_id,
        command,
        actor="driver" if is_decline else "staff",
        actor_id="d1" if is_decline else "anna",
    )
    fleet.record([make_fix("d1", 1)])
    assert courier_of(fleet, mario) == []


def test_courier__offered_an_order__is_not_seen(fleet: Fleet) -> None:
    mario = add_member(fleet)
    order_id = fleet.create_order()["order_id"]
    confirm(fleet, mario, order_id)
    fleet.record([make_fix("d1", 1, place=RESTAURANT)])
    assert fleet.offer_order(order_id, "d1")["driver_id"] == "d1"
    assert courier_of(fleet, mario) == []


@pytest.mark.parametrize("state", ["arriving", "at_customer"])
def test_state__on_the_way_to_the_customer__tells_no_more_than_picked_up(
    fleet: Fleet, state: str
) -> None:
    mario = add_member(fleet)
    order_id = fleet.assigned_order()
    fleet.command_order(order_id, "pick_up")
    fleet.run("ALTER TABLE orders DISABLE TRIGGER _100_guard_transition")
    fleet.run("UPDATE orders SET state = %s WHERE order_id = %s", state, order_id)
    assert [one["state"] for one in orders_of(fleet, mario)] == ["picked_up"]


def test_ready_at__set_by_the_restaurant__holds_until_the_pick_up(fleet: Fleet) -> None:
    mario = add_member(fleet)
    order_id = fleet.create_order()["order_id"]
    first, second = now() + timedelta(minutes=10), now() + timedelta(minutes=20)
    set_ready(fleet, mario, order_id, first)
    set_ready(fleet, mario, order_id, second)
    set_ready(fleet, mario, order_id, second)
    assert [one["ready_at"] for one in orders_of(fleet, mario)] == [second]
    audited = fleet.run("SELECT who FROM audit WHERE action = 'order.ready_at'")
    assert audited == [{"who": "mario"}] * 2  # the repeat changed nothing
    confirm(fleet, mario, order_id)
    fleet.command_order(order_id, "assign", driver_id="d1")
    fleet.command_order(order_id, "pick_up")
    with pytest.raises(errors.IllegalTransition):
        set_ready(fleet, mario, order_id, first)


def test_create_order__repeated_after_the_restaurant_set_ready_at__is_the_same_order(
    fleet: Fleet,
) -> None:
    mario = add_member(fleet)
    create = query("create_order")
    parameters = {
        "restaurant_id": 1,
        "pickup": None,
        "lon_deg": AWAY.lon_deg,
        "lat_deg": AWAY.lat_deg,
        "token_sha256": secrets.token_bytes(32),
        "policy_id": None,
        "idempotency_key": "k1",
        "customer_name": None,
        "details": '{"ready_at": "2026-11-29T19:10:00+00:00", "items": "soup"}',
        "who": "shop",
    }
    made = fleet.conn.execute(create, parameters).fetchone()
    assert made is not None
    set_ready(fleet, mario, made[0], now())
    parameters["token_sha256"] = secrets.token_bytes(32)
    repeated = fleet.conn.execute(create, parameters).fetchone()
    assert repeated is not None
    assert (repeated[0], repeated[-1]) == (made[0], False)
    parameters["details"] = '{"ready_at": "2026-11-29T20:10:00+00:00", "items": "soup"}'
    with pytest.raises(psycopg.Error, match="this key made another order"):
        fleet.conn.execute(create, parameters)


def test_token__of_a_restaurant__is_found_by_no_function_of_others(fleet: Fleet) -> None:
    mario = add_member(fleet)
    order_id = fleet.create_order()["order_id"]
    assert call(fleet, "SELECT * FROM find_token_v2(%s)", mario) == []
    assert call(fleet, "SELECT * FROM find_tokens_v1(ARRAY[%s])", mario) == []
    with connect_as(fleet.database, "driver_api") as conn:
        assert conn.execute("SELECT * FROM find_token_v2(%s)", [mario]).fetchall() == []
    with connect_as(fleet.database, "customer") as conn:
        links = "SELECT * FROM customer_links_v1(ARRAY[%s], ARRAY[%s]::uuid[])"
        assert conn.execute(links, [mario, order_id]).fetchall() == []


@pytest.mark.parametrize("role", ["viewer", "dispatcher", "admin", "integration"])
def test_functions_of_restaurants__token_of_another_role__is_refused(
    fleet: Fleet, role: str
) -> None:
    token = secrets.token_bytes(32)
    change_staff(fleet.conn, "vera", "add", who=WHO, role=role, token_sha256=token)
    order_id = fleet.create_order()["order_id"]
    assert call(fleet, "SELECT * FROM restaurant_session_v1(%s)", token) == []
    for use in (
        lambda: orders_of(fleet, token),
        lambda: confirm(fleet, token, order_id),
        lambda: set_ready(fleet, token, order_id, now()),
    ):
        with pytest.raises(errors.Unauthenticated):
            use()


def test_session__of_a_member__opens_the_same_and_ends_with_the_member(fleet: Fleet) -> None:
    mario, session = add_member(fleet), secrets.token_bytes(32)
    opened = "SELECT * FROM open_staff_session_v2(%s, %s, 3600)"
    [holder] = call(fleet, opened, mario, session)
    assert (holder["name"], holder["role"]) == ("mario", "restaurant")
    [whose] = call(fleet, "SELECT * FROM restaurant_session_v1(%s)", session)
    assert (whose["name"], whose["restaurant_id"]) == ("mario", 1)
    assert call(fleet, opened, session, secrets.token_bytes(32)) == []  # a session opens none
    change_staff(fleet.conn, "mario", "revoke", who=WHO)
    with pytest.raises(errors.Unauthenticated):
        orders_of(fleet, session)
    with pytest.raises(errors.Unauthenticated):
        orders_of(fleet, mario)


@pytest.mark.parametrize("restaurant_id", [None, 99, -1])
def test_member__without_a_known_restaurant__is_refused(
    fleet: Fleet, restaurant_id: int | None
) -> None:
    with pytest.raises(errors.UnknownRestaurant):
        add_member(fleet, restaurant_id=restaurant_id)


def test_member__of_another_role_from_now_on__loses_the_restaurant(fleet: Fleet) -> None:
    mario = add_member(fleet)
    viewer = secrets.token_bytes(32)
    change_staff(fleet.conn, "mario", "rotate", who=WHO, role="viewer", token_sha256=viewer)
    [member] = [one for one in list_staff(fleet.conn) if one.name == "mario"]
    assert isinstance(member, StaffMember)
    assert (member.role, member.restaurant_id) == ("viewer", None)
    for token in (mario, viewer):
        with pytest.raises(errors.Unauthenticated):
            orders_of(fleet, token)
    assert [one["name"] for one in call(fleet, "SELECT * FROM find_token_v2(%s)", viewer)] == [
        "mario"
    ]


def test_member__changed_by_a_service_of_the_release_before__keeps_the_restaurant(
    fleet: Fleet,
) -> None:
    add_member(fleet)
    token = secrets.token_bytes(32)
    call(fleet, "SELECT change_staff_v1('mario', 'rotate', NULL, %s, NULL, 'x')", token)
    assert call(fleet, "SELECT restaurant_id FROM restaurant_session_v1(%s)", token) == [
        {"restaurant_id": 1}
    ]


def test_orders__that_ended_long_ago__are_left_out(fleet: Fleet) -> None:
    mario = add_member(fleet)
    order_id = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "cancel")
    assert [one["state"] for one in orders_of(fleet, mario)] == ["cancelled"]
    fleet.run("UPDATE orders SET ended_at = now() - interval '3 h'")
    assert orders_of(fleet, mario) == []


def test_courier__with_another_stop_first__has_a_name_and_no_position(fleet: Fleet) -> None:
    mario = add_member(fleet)
    first, second = fleet.assigned_order(), fleet.assigned_order()
    time.sleep(SHOWN_AFTER_S)
    fleet.record([make_fix("d1", 1, place=AWAY)])
    stops = {
        row["order_id"]: row["stop_no"]
        for row in fleet.run("SELECT order_id, stop_no FROM assignment")
    }
    assert sorted(stops.values()) == [1, 2]
    rows = {row["order_id"]: row for row in orders_of(fleet, mario)}
    assert [rows[one]["driver_id"] for one in (first, second)] == ["d1", "d1"]
    shown = [one for one in (first, second) if rows[one]["fix_at"] is not None]
    assert [stops[one] for one in shown] == [1]
