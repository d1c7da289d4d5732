"""Plans of offers and details: made while all was empty, they read few rows when it is large."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from doorstep.credentials import token_sha256
from sql import query
from tests.factories import RESTAURANT, make_fix, now
from tests.sql.fleet import Fleet
from tracking_api.orders.search import DueRange, list_query

OTHERS = 3000
# Orders of a week: confirmed and delivered, with details, offers, a failure, a pickup place.
MANY = f"""
WITH numbers AS (SELECT n, gen_random_uuid() AS order_id FROM generate_series(1, {OTHERS}) n),
places AS (
    INSERT INTO restaurant (restaurant_id, name, lon_deg, lat_deg, is_ad_hoc)
    SELECT 5000 + n, 'place', 11.3, 43.8, true FROM numbers
),
made AS (
    INSERT INTO orders (order_id, restaurant_id, lon_deg, lat_deg, policy_id)
    SELECT order_id, 1, 11.25, 43.77, 1 FROM numbers
),
detailed AS (
    INSERT INTO order_detail (order_id, created_by, external_id, ready_at, promised_to, search)
    SELECT order_id, '', 'x' || n, now() - n * interval '1 min', now() - n * interval '1 min',
        to_tsvector('simple', 'other ' || n) FROM numbers
),
offered AS (
    INSERT INTO order_offer (order_id, driver_id, offered_at, expires_at, ended_at, outcome)
    SELECT order_id, 'd3', now() - interval '1 h', now() - interval '59 min',
        now() - interval '59 min', 'expired' FROM numbers
)
INSERT INTO order_command (order_id, command, actor, actor_id, from_state, to_state, assignment_no,
    commanded_at)
SELECT order_id, 'confirm', 'staff', 'anna', 'created', 'confirmed', 0, now() FROM numbers
"""
SCANNED = """
SELECT relname AS name, seq_tup_read::int AS scanned FROM pg_stat_xact_user_tables
WHERE relname IN ('orders', 'order_detail', 'order_offer', 'order_command', 'assignment',
    'restaurant', 'driver_state', 'unassigned_order', 'access_token')
"""


def _search(text: str) -> Callable[[Fleet, UUID], list[dict[str, Any]]]:
    def run(fleet: Fleet, _order_id: UUID) -> list[dict[str, Any]]:
        cursor = fleet.conn.execute(*list_query(50, text=text))
        return [{"order_id": row[0]} for row in cursor.fetchall()]

    return run


def _due(fleet: Fleet, _order_id: UUID) -> list[dict[str, Any]]:
    from_at = now() + timedelta(minutes=1)
    cursor = fleet.conn.execute(*list_query(50, due=DueRange(from_at, from_at + timedelta(days=1))))
    return [{"order_id": row[0]} for row in cursor.fetchall()]


def _read(fleet: Fleet, order_id: UUID) -> list[dict[str, Any]]:
    cursor = fleet.conn.execute(query("read_order", "queries/orders.sql"), {"order_id": order_id})
    return [{"order_id": row[0]} for row in cursor.fetchall()]


STATEMENTS: dict[str, Callable[[Fleet, UUID], list[dict[str, Any]]]] = {
    "offer": lambda fleet, order_id: [fleet.offer_order(order_id, "d2")],
    "advance": lambda fleet, _: fleet.run("SELECT order_offer__advance_v1(100) AS count"),
    "driver_read": lambda fleet, _: fleet.run(
        "SELECT * FROM driver_read_v2(%s)", token_sha256("d1")
    ),
    "accept": lambda fleet, order_id: fleet.run(
        "SELECT * FROM driver_accept_offer_v1(%s, %s, 'k')", token_sha256("d1"), order_id
    ),
    "decline": lambda fleet, order_id: fleet.run(
        "SELECT * FROM driver_decline_offer_v1(%s, %s, 'k')", token_sha256("d1"), order_id
    ),
    "read": _read,
    "search": _search("carla"),
    "search by id": _search("00aa"),
    "due": _due,
}

PLANNED_EACH_TIME = ("read", "search", "search by id", "due")  # no functions


def offered_order(fleet: Fleet, *, expired: bool = False, open_offer: bool = True) -> UUID:
    order_id: UUID = fleet.create_order()["order_id"]
    fleet.run(
        "INSERT INTO order_detail (order_id, created_by, promised_to, search)"
        " VALUES (%s, '', now() + interval '5 min', to_tsvector('simple', 'Carla'))",
        order_id,
    )
    fleet.command_order(order_id, "confirm")
    if open_offer:
        fleet.offer_order(order_id, "d1")
    if expired:
        fleet.expire_offer(order_id)
    return order_id


@pytest.mark.parametrize("name", STATEMENTS)
def test_offers_and_details__plans_from_when_all_was_empty__scan_no_large_table(
    fleet: Fleet, name: str
) -> None:
    fleet.add_drivers("d3")
    fleet.record([make_fix("d1", place=RESTAURANT)])
    fleet.add_token("d1")
    fleet.run("VACUUM ANALYZE")
    kinds = {"expired": name == "advance", "open_offer": name != "offer"}
    for _ in range(6):  # plans are made, and kept
        order_id = offered_order(fleet, **kinds)
        STATEMENTS[name](fleet, order_id)
        fleet.command_order(order_id, "cancel")
    fleet.run(MANY)
    fleet.add_drivers(*(f"other-{n}" for n in range(OTHERS)), on_duty=False)
    if name in PLANNED_EACH_TIME:
        fleet.run("ANALYZE")
        # the planner prefers to scan a few thousand rows for a beginning of a word
        fleet.run("SET enable_seqscan = off")
    order_id = offered_order(fleet, **kinds)
    with fleet.conn.transaction():
        before = {row["name"]: row["scanned"] for row in fleet.run(SCANNED)}
        found = STATEMENTS[name](fleet, order_id)
        scanned = {
            row["name"]: row["scanned"] - before.get(row["name"], 0) for row in fleet.run(SCANNED)
        }
    assert len(found) >= (0 if name == "search by id" else 1)
    assert max(scanned.values()) <= 20, scanned
