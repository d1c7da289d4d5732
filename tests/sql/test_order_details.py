"""Details of orders: the customer, the address, the times, a pickup place, why one failed."""

from __future__ import annotations

import json
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from doorstep import errors
from doorstep.credentials import token_sha256
from doorstep.http.failure_body import FailureReason
from doorstep.store import personal_data
from doorstep.store.error_mapping import translated
from doorstep.store.tables import CONTACT_RULES, FAILURE_REASONS
from sql import query
from tests.factories import CUSTOMER, RESTAURANT, now
from tests.sql.catalog import tables_with
from tests.sql.fleet import Fleet, connect_as
from tracking_api.orders.detail_schemas import ContactRule
from tracking_api.orders.search import DueRange, list_query

DETAILS = {
    "external_id": "shop-1042",
    "customer_phone": "+39 055 123456",
    "customer_language": "it",
    "address": "Via dei Servi 12",
    "door_note": "Ring at O'Hara",
    "items": "2 x margherita",
    "ready_at": "2026-11-29T19:10:00+00:00",
    "scheduled_for": "2026-11-29T19:00:00+00:00",
    "promised_from": "2026-11-29T19:30:00+00:00",
    "promised_to": "2026-11-29T19:45:00+00:00",
    "contact_rule": "call",
    "pin": "1234",
}
PICKUP = {
    "name": "Bookshop",
    "address": "Piazza del Duomo 3",
    "lon_deg": RESTAURANT.lon_deg,
    "lat_deg": RESTAURANT.lat_deg,
    "phone": "+39 055 654321",
}


def create(
    fleet: Fleet,
    details: dict[str, Any] | None = None,
    *,
    pickup: dict[str, Any] | None = None,
    name: str | None = "Carla Rossi",
    key: str | None = None,
    who: str = "anna",
    token: bytes | None = None,
) -> dict[str, Any]:
    """Create an order as tracking_api does."""
    with (
        connect_as(fleet.database, "tracking_api") as conn,
        translated(),
        conn.cursor(row_factory=dict_row) as cursor,
    ):
        parameters = {
            "restaurant_id": None if pickup else 1,
            "pickup": json.dumps(pickup) if pickup else None,
            "lon_deg": CUSTOMER.lon_deg,
            "lat_deg": CUSTOMER.lat_deg,
            "token_sha256": token or secrets.token_bytes(32),
            "policy_id": None,
            "idempotency_key": key,
            "customer_name": name,
            "details": json.dumps(details) if details else None,
            "who": who,
        }
        row = cursor.execute(query("create_order"), parameters).fetchone()
        assert row is not None
        return row


def details_of(fleet: Fleet, order_id: UUID) -> dict[str, Any]:
    [row] = fleet.run("SELECT details FROM order_with_details WHERE order_id = %s", order_id)
    found: dict[str, Any] = row["details"]
    return found


def seen_by_courier(fleet: Fleet, driver_id: str) -> dict[str, Any] | None:
    [row] = fleet.run("SELECT current_order FROM driver_read_v2(%s)", token_sha256(driver_id))
    found: dict[str, Any] | None = row["current_order"]
    return found


def assign(fleet: Fleet, order_id: UUID, driver_id: str = "d1") -> None:
    fleet.command_order(order_id, "confirm")
    fleet.command_order(order_id, "assign", driver_id=driver_id)


def test_create_order__with_details__staff_reads_them_and_no_pin(fleet: Fleet) -> None:
    order_id = create(fleet, DETAILS)["order_id"]
    found = details_of(fleet, order_id)
    expected = {name: value for name, value in DETAILS.items() if name != "pin"}
    assert found == expected | {"has_pin": True, "pickup": None, "failure": None}


def test_create_order__without_details__has_the_careful_defaults(fleet: Fleet) -> None:
    found = details_of(fleet, create(fleet, name=None)["order_id"])
    assert (found["contact_rule"], found["has_pin"], found["address"]) == ("none", False, None)
    assert fleet.run("SELECT FROM order_detail") == []


def test_create_order__repeated_with_its_key__compares_every_detail(fleet: Fleet) -> None:
    first = create(fleet, DETAILS, key="k")
    assert create(fleet, DETAILS, key="k")["order_id"] == first["order_id"]
    for name in DETAILS:
        without = {one: value for one, value in DETAILS.items() if one != name}
        with pytest.raises(errors.IdempotencyConflict):
            create(fleet, without, key="k")
    with pytest.raises(errors.IdempotencyConflict):
        create(fleet, key="k")


@pytest.mark.parametrize("details", [DETAILS, None])
def test_create_order__repeated_after_the_customer_changed_the_note__is_the_same_order(
    fleet: Fleet, details: dict[str, Any] | None
) -> None:
    token = secrets.token_bytes(32)
    first = create(fleet, details, name=None, key="k", token=token)
    for note in ("Second gate", None, "Third gate"):
        with connect_as(fleet.database, "customer") as conn:
            conn.execute("SELECT customer_note_v1(%s, %s, %s)", [token, first["order_id"], note])
    again = create(fleet, details, name=None, key="k")
    assert (again["order_id"], again["created"]) == (first["order_id"], False)
    assert details_of(fleet, first["order_id"])["door_note"] == "Third gate"
    with pytest.raises(errors.IdempotencyConflict):
        create(fleet, {**(details or {}), "door_note": "Third gate"}, name=None, key="k")


def test_external_id__is_unique_among_the_orders_of_one_creator(fleet: Fleet) -> None:
    create(fleet, {"external_id": "a"})
    with pytest.raises(errors.ExternalIdTaken, match="external_id a"):
        create(fleet, {"external_id": "a"}, key="other")
    create(fleet, {"external_id": "a"}, who="dario")
    assert fleet.run("SELECT count(*) AS n FROM orders") == [{"n": 2}]


def test_create_order__two_at_once_under_one_key_with_a_pickup__are_one_order_and_one_place(
    fleet: Fleet,
) -> None:
    gate = threading.Barrier(4)

    def make(_: int) -> tuple[UUID, bool]:
        gate.wait()
        made = create(fleet, DETAILS, pickup=PICKUP, key="k")
        return made["order_id"], made["created"]

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make, range(4)))
    assert len({order_id for order_id, _ in made}) == 1
    assert sorted(created for _, created in made) == [False, False, False, True]
    assert fleet.run("SELECT count(*) AS n FROM restaurant WHERE is_ad_hoc") == [{"n": 1}]
    with pytest.raises(errors.IdempotencyConflict):
        create(fleet, DETAILS, pickup=PICKUP | {"phone": None}, key="k")


def test_pickup__of_one_order__is_where_the_courier_goes_and_in_no_list(fleet: Fleet) -> None:
    fleet.add_token("d1")
    order = create(fleet, pickup=PICKUP)
    assign(fleet, order["order_id"])
    assert details_of(fleet, order["order_id"])["pickup"] == PICKUP
    seen = seen_by_courier(fleet, "d1")
    assert seen is not None
    assert seen["restaurant"] == PICKUP
    page = {"retired": True, "keys": None, "after": None, "limit": 100}
    cursor = fleet.conn.execute(query("list_restaurants", "queries/administration.sql"), page)
    assert [row[0] for row in cursor.fetchall()] == [1]


@pytest.mark.parametrize("rule", CONTACT_RULES)
def test_courier__while_assigned__sees_the_phone_only_as_the_contact_rule_allows(
    fleet: Fleet, rule: str
) -> None:
    fleet.add_token("d1")
    order_id = create(fleet, DETAILS | {"contact_rule": rule})["order_id"]
    assert seen_by_courier(fleet, "d1") is None
    assign(fleet, order_id)
    seen = seen_by_courier(fleet, "d1")
    assert seen is not None
    assert seen["customer"] == {
        "name": "Carla Rossi",
        "phone": None if rule == "none" else DETAILS["customer_phone"],
        "contact_rule": rule,
        "address": DETAILS["address"],
        "note": DETAILS["door_note"],
    }
    fleet.command_order(order_id, "pick_up")
    fleet.command_order(order_id, "deliver")
    assert seen_by_courier(fleet, "d1") is None


def test_customer__of_an_order_with_details__sees_none_of_the_new_ones(fleet: Fleet) -> None:
    token = secrets.token_bytes(32)
    order_id = fleet.create_order(token_sha256=token)["order_id"]
    fleet.run(
        "INSERT INTO order_detail (order_id, created_by, external_id, door_note, search)"
        " VALUES (%s, '', 'shop-1042', 'mind the dog', '')",
        order_id,
    )
    with connect_as(fleet.database, "customer") as conn:
        link = {"token_sha256s": [token], "order_ids": [order_id]}
        shown = [
            conn.execute(query("customer_tracks"), link).fetchall(),
            conn.execute(query("customer_polls"), link).fetchall(),
            conn.execute(
                "SELECT * FROM customer_tracks_v3(%s, %s, NULL, NULL, NULL, NULL)",
                [[token], [order_id]],
            ).fetchall(),
        ]
        assert all(shown)
        assert not any(word in str(shown) for word in ("shop-1042", "mind the dog"))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT * FROM order_detail")


# -- searching -------------------------------------------------------------------------------------


def search(fleet: Fleet, text: str) -> list[UUID]:
    with connect_as(fleet.database, "tracking_api") as conn:
        return [row[0] for row in conn.execute(*list_query(50, text=text)).fetchall()]


@pytest.mark.parametrize(
    "text",
    [
        *("Carla", "rossi", "ross car", "shop-1042", "shop-10", "SHOP", "+39 055 123456"),
        *("055 1234", "39055123", "via dei servi 12", "servi", "margh", "O'Hara", "o'ha"),
    ],
)
def test_search__beginnings_of_words_of_any_detail__find_the_order(fleet: Fleet, text: str) -> None:
    create(fleet, {"address": "Borgo 5"}, name="Dario Bianchi")
    order_id = create(fleet, DETAILS)["order_id"]
    assert search(fleet, text) == [order_id]


@pytest.mark.parametrize(
    "text", ["nothing", "rossi bianchi", "arla", "'", "\\", "& | ! ( ) :*", "<->"]
)
def test_search__other_texts__find_nothing_and_are_no_syntax(fleet: Fleet, text: str) -> None:
    create(fleet, DETAILS)
    assert search(fleet, text) == []


def test_search__beginning_of_an_id__finds_the_order(fleet: Fleet) -> None:
    order_id = create(fleet, name=None)["order_id"]
    create(fleet, DETAILS)
    for text in (str(order_id), str(order_id)[:13].upper(), str(order_id)[:8]):
        assert search(fleet, text) == [order_id]


def due(fleet: Fleet, from_at: str, to_at: str) -> list[UUID]:
    instants = [datetime.fromisoformat(at) for at in (from_at, to_at)]
    with connect_as(fleet.database, "tracking_api") as conn:
        found = list_query(50, due=DueRange(*instants))
        return [row[0] for row in conn.execute(*found).fetchall()]


@pytest.mark.parametrize(
    ("from_at", "to_at", "is_found"),
    [
        ("2026-11-29T19:00Z", "2026-11-29T19:01Z", True),  # scheduled_for
        ("2026-11-29T18:00Z", "2026-11-29T19:00Z", False),
        ("2026-11-29T19:01Z", "2026-11-29T19:10Z", False),
        ("2026-11-29T19:10Z", "2026-11-29T19:20Z", True),  # ready_at
        ("2026-11-29T19:35Z", "2026-11-29T19:40Z", True),  # in the promised window
        ("2026-11-29T19:45Z", "2026-12-09T19:45Z", True),  # its end
        ("2026-11-29T19:46Z", "2026-12-09T19:45Z", False),
        ("2026-11-19T19:46Z", "2026-11-29T19:00:01Z", True),
        ("2026-11-19T19:46Z", "2026-11-29T19:00Z", False),
    ],
)
def test_due__each_time_of_an_order__finds_it(
    fleet: Fleet, from_at: str, to_at: str, is_found: bool
) -> None:
    order_id = create(fleet, DETAILS)["order_id"]
    create(fleet, {"address": "Borgo 5"})
    assert due(fleet, from_at, to_at) == ([order_id] if is_found else [])


@pytest.mark.parametrize("only", ["ready_at", "scheduled_for", "promised_from", "promised_to"])
def test_due__order_with_one_time__is_found_by_it(fleet: Fleet, only: str) -> None:
    order_id = create(fleet, {only: "2026-11-29T19:10:00+00:00"})["order_id"]
    assert due(fleet, "2026-11-29T19:10Z", "2026-11-29T19:11Z") == [order_id]
    assert due(fleet, "2026-11-29T19:11Z", "2026-11-30T19:11Z") == []
    assert due(fleet, "2026-11-28T19:11Z", "2026-11-29T19:10Z") == []


# -- failures --------------------------------------------------------------------------------------


def fail(fleet: Fleet, order_id: UUID, reason: str, note: str | None, key: str | None) -> str:
    with connect_as(fleet.database, "driver_api") as conn, translated():
        row = conn.execute(
            "SELECT state::text FROM driver_fail_order_v1(%s, %s, %s, %s, %s)",
            [token_sha256("d1"), order_id, reason, note, key],
        ).fetchone()
        assert row is not None
        return str(row[0])


def test_fail__with_a_reason__is_in_the_details_of_the_order(fleet: Fleet) -> None:
    fleet.add_token("d1")
    order_id = fleet.assigned_order("d1")
    with pytest.raises(errors.IllegalTransition):
        fail(fleet, order_id, "refused", None, None)
    fleet.command_order(order_id, "pick_up")
    assert fail(fleet, order_id, "customer_absent", "Rang twice.", "k") == "failed"
    expected = {"reason": "customer_absent", "note": "Rang twice."}
    assert details_of(fleet, order_id)["failure"] == expected
    assert fail(fleet, order_id, "customer_absent", "Rang twice.", "k") == "failed"
    with pytest.raises(errors.IdempotencyConflict):
        fail(fleet, order_id, "refused", "Rang twice.", "k")
    assert details_of(fleet, order_id)["failure"] == expected


@pytest.mark.parametrize("reason", FAILURE_REASONS)
def test_fail__as_staff__takes_each_reason(fleet: Fleet, reason: str) -> None:
    order_id = fleet.assigned_order("d1")
    fleet.command_order(order_id, "pick_up")
    with connect_as(fleet.database, "tracking_api") as conn:
        conn.execute(
            "SELECT fail_order_as_staff_v1(%s, 'anna', %s, NULL, NULL)", [order_id, reason]
        )
    assert details_of(fleet, order_id)["failure"] == {"reason": reason, "note": None}


def test_words__of_the_api_and_of_the_database__are_the_same(fleet: Fleet) -> None:
    [row] = fleet.run(
        "SELECT enum_range(NULL::failure_reason)::text[] AS reasons,"
        " enum_range(NULL::contact_rule)::text[] AS rules"
    )
    assert tuple(row["reasons"]) == tuple(FailureReason) == FAILURE_REASONS
    assert tuple(row["rules"]) == tuple(ContactRule) == CONTACT_RULES


# -- exporting and forgetting ----------------------------------------------------------------------


def test_forget_order__with_details__leaves_none_of_them_anywhere(
    fleet: Fleet, conn: psycopg.Connection[Any]
) -> None:
    fleet.add_token("d1")
    order_id = create(fleet, DETAILS, pickup=PICKUP, key="key-of-carla")["order_id"]
    fleet.command_order(order_id, "confirm")
    fleet.offer_order(order_id, "d1", key="key-of-an-offer")
    fleet.command_order(order_id, "assign", driver_id="d1")
    fleet.command_order(order_id, "pick_up")
    fail(fleet, order_id, "other", "Carla shouted.", None)
    fleet.run("DELETE FROM outbox")
    fleet.run("UPDATE orders SET ended_at = %s", now() - timedelta(days=2))
    texts = (
        *("Carla", "carla", "shop-1042", "055 123456", "Servi", "Hara", "margherita", "shouted"),
        *("Bookshop", "Duomo", "654321", "key-of-an-offer"),
    )
    assert {"order_detail", "order_command", "restaurant"} <= tables_with(fleet, *texts)
    exported = dict(personal_data.export_order(conn, str(order_id)))
    conn.rollback()
    assert "Bookshop" in exported["restaurant"]
    assert "Via dei Servi 12" in exported["order_detail"]
    personal_data.forget_order(conn, str(order_id), "test")
    assert tables_with(fleet, *texts) == set()
    assert fleet.run("SELECT failure_reason FROM order_command WHERE command = 'fail'") == [
        {"failure_reason": "other"}
    ]
