"""Retention, as expired and as set: docs/how-to/personal-data.md."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from doorstep.store import personal_data
from driver_events.recorder import Connection
from driver_events.retention_worker import ROWS_PER_COMMIT, RetentionWorker
from tests.database import Database
from tests.factories import CUSTOMER, make_fix, now
from tests.sql.catalog import tables_with
from tests.sql.fleet import Fleet


def expire(fleet: Fleet, kind: str, days: float) -> int:
    """Expire a kind by a clock that is so many days ahead."""
    [row] = fleet.run("SELECT retention__expire(%s, 500, %s) AS n", kind, now() + timedelta(days))
    return int(row["n"])


def test_retention_of_orders__past_their_days__are_anonymous(fleet: Fleet) -> None:
    order_id = fleet.assigned_order("d1")
    assert expire(fleet, "orders", 900) == 0  # it is open
    fleet.command_order(order_id, "cancel")
    assert [expire(fleet, "orders", days) for days in (89, 91, 91)] == [0, 1, 0]
    assert tables_with(fleet, f"{CUSTOMER.lon_deg}") == set()


def test_retention_of_commands__past_their_days__keeps_who_was_on_duty(fleet: Fleet) -> None:
    order_id = fleet.assigned_order("d1")
    fleet.command_order(order_id, "cancel", actor_id="vera")
    fleet.command_driver("d1", "off_duty")
    assert expire(fleet, "commands", 364) == 0
    assert expire(fleet, "commands", 366) == 2  # on duty, and the assignment
    assert expire(fleet, "commands", 366) == 0
    left = fleet.run("SELECT command FROM driver_command WHERE driver_id = 'd1'")
    assert left == [{"command": "off_duty"}]
    assert tables_with(fleet, "vera") == {"audit"}
    [outcome] = fleet.record([make_fix("d1")])
    assert outcome.outcome == "dropped"


def test_retention_of_tokens__what_opens_nothing__is_deleted_and_a_revoked_staff_token_stays(
    fleet: Fleet,
) -> None:
    order_id = fleet.assigned_order("d1")
    fleet.command_order(order_id, "cancel")
    fleet.run(
        "INSERT INTO access_token (token_sha256, role, driver_id, name, revoked_at, expires_at)"
        " VALUES (%s, 'driver', 'd1', NULL, NULL, NULL), (%s, 'driver', 'd1', NULL, now(), NULL),"
        " (%s, 'staff', NULL, 'stack', now(), NULL), (%s, 'staff', NULL, 'vera', NULL, now())",
        *(letter * 32 for letter in (b"a", b"b", b"c", b"d")),
    )
    assert [expire(fleet, "tokens", days) for days in (29, 31)] == [0, 3]
    left = fleet.run("SELECT role::text, name FROM access_token ORDER BY name")
    assert left == [{"role": "staff", "name": "stack"}, {"role": "driver", "name": None}]


def test_retention_of_clocks_and_positions__past_their_days__are_deleted(fleet: Fleet) -> None:
    at = now()
    fleet.record([make_fix(fix_at=at + timedelta(seconds=9), received_at=at)])
    assert [expire(fleet, "clocks", days) for days in (2.9, 3.1)] == [0, 1]
    assert [expire(fleet, "positions", days) for days in (89, 91, 91)] == [0, 1, 0]
    assert fleet.driver()["geom"] is None
    assert fleet.run("SELECT 1 FROM driver_cell") == []
    assert fleet.record([make_fix(seq=2)]) == []
    assert fleet.driver()["seq"] == 2


def test_retention_of_contacts__of_a_removed_driver_only__are_cleared(fleet: Fleet) -> None:
    for driver_id in ("d1", "d2"):
        fleet.run(
            "SELECT change_driver_v1(%s, %s, 'test')",
            driver_id,
            '{"name": "Anna", "vehicle": "moped", "phone": "+39 055 1"}',
        )
    fleet.run("SELECT change_device_v2('driver', 'd1', 'remove', 'test', NULL, NULL)")
    assert [expire(fleet, "contacts", days) for days in (29, 31, 31)] == [0, 1, 0]
    left = fleet.run("SELECT driver_id, name, vehicle, phone FROM driver ORDER BY driver_id")
    assert left[0] == {"driver_id": "d1", "name": "d1", "vehicle": None, "phone": None}
    assert left[1]["phone"] == "+39 055 1"


def test_retention_of_the_audit__only_past_its_days__may_be_deleted(fleet: Fleet) -> None:
    fleet.run(
        "INSERT INTO audit (at, who, action) VALUES (now() - interval '364 days', 'a', 'b'),"
        " (now() - interval '366 days', 'a', 'b')"
    )
    with pytest.raises(psycopg.Error, match="append-only"):
        fleet.run("DELETE FROM audit")
    with pytest.raises(psycopg.Error, match="append-only"):
        fleet.run("UPDATE audit SET who = 'c'")
    assert expire(fleet, "audit", 0) == 1


def test_retention__a_service__can_neither_change_it_nor_turn_the_clock(
    fleet: Fleet, database: Database
) -> None:
    statements = (
        "UPDATE retention SET days = 30",
        "SELECT retention__set_v1('audit', 30, 'x')",
        "SELECT retention__expire('audit', 1, now() + interval '9 years')",
        "SELECT * FROM forget_driver_v1('d1', 'x')",
        "DELETE FROM audit",
    )
    refused = 0
    for role in (
        "driver_events",
        "driver_api",
        "tracking_api",
        "customer",
        "broker_sync",
        "webhooks",
    ):
        with database.connect(role, autocommit=True) as conn:
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(statement)
                refused += 1
    assert refused == 30


def test_set_retention__below_what_the_rules_need__is_refused(
    fleet: Fleet, conn: psycopg.Connection[Any]
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        personal_data.set_retention(conn, "orders", 2, "test")
    conn.rollback()
    personal_data.set_retention(conn, "history", 30, "test")
    personal_data.set_keep_off_duty(conn, True, "test")
    conn.commit()
    assert {"kind": "history", "days": 30} in [
        {"kind": one.kind, "days": one.days} for one in personal_data.list_retention(conn)
    ]
    assert personal_data.keeps_off_duty(conn)
    entries = fleet.run(
        "SELECT subject FROM audit WHERE action = 'retention.set' ORDER BY audit_id"
    )
    assert [one["subject"] for one in entries] == ["history", "off-duty"]


def test_retention_worker__more_than_one_transaction_holds__expires_all(
    fleet: Fleet, database: Database
) -> None:
    fleet.run(
        "INSERT INTO audit (at, who, action)"
        " SELECT now() - interval '400 days', 'a', 'b' FROM generate_series(1, %s)",
        2 * ROWS_PER_COMMIT + 1,
    )
    rests: list[float] = []

    def rest(worked_s: float) -> bool:
        rests.append(worked_s)
        return True

    worker = RetentionWorker(Connection(database.url("driver_events"), "test"), rest)
    assert worker.run() is False
    assert fleet.run("SELECT 1 FROM audit WHERE who = 'a'") == []
    assert len(rests) == 2


def test_retention_worker__the_service_stops__ends_after_one_transaction(
    fleet: Fleet, database: Database
) -> None:
    fleet.run(
        "INSERT INTO audit (at, who, action)"
        " SELECT now() - interval '400 days', 'a', 'b' FROM generate_series(1, %s)",
        2 * ROWS_PER_COMMIT,
    )
    worker = RetentionWorker(
        Connection(database.url("driver_events"), "test"), lambda _worked_s: False
    )
    worker.run()
    assert len(fleet.run("SELECT 1 FROM audit WHERE who = 'a'")) == ROWS_PER_COMMIT
