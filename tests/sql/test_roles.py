"""What each database role may do: docs/reference/database-roles.md, and nothing else.

The page is compared with a migrated database, and everything that it does not grant is tried.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from sql import roles
from sql.__main__ import main
from tests.database import Database
from tests.sql.fleet import Fleet, connect_as

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "database-roles.md"

HASH = b"0" * 32
COMMAND = "SELECT * FROM apply_order_command_v1({order}, %s, %s, %s, NULL, NULL)"

# (role, what it must not do, how it would)
ABUSES: tuple[tuple[str, str, str, tuple[object, ...]], ...] = (
    ("driver_api", "cancel_as_staff", COMMAND, ("cancel", "staff", "mallory")),
    ("driver_api", "cancel_as_the_customer", COMMAND, ("cancel", "customer", "customer")),
    ("driver_api", "command_without_the_drivers_token", COMMAND, ("pick_up", "driver", "d1")),
    (
        "driver_api",
        "end_duty_without_the_drivers_token",
        "SELECT apply_driver_command_v1('d2', 'off_duty', 'staff', NULL)",
        (),
    ),
    ("driver_api", "read_destinations", "SELECT lon_deg, lat_deg FROM orders", ()),
    ("driver_api", "read_customers", "SELECT customer_name FROM order_now", ()),
    ("driver_api", "read_assignments", "SELECT customer_lon_deg FROM assignment", ()),
    ("driver_api", "read_positions", "SELECT lon_deg, lat_deg FROM driver_state", ()),
    ("driver_api", "read_names_of_drivers", "SELECT name FROM driver", ()),
    ("driver_api", "read_history", "SELECT lon_deg FROM fix_history", ()),
    ("driver_api", "read_pins", "SELECT pin FROM order_pin", ()),
    ("driver_api", "read_photos", "SELECT content FROM order_photo", ()),
    ("tracking_api", "read_pins", "SELECT pin FROM order_pin", ()),
    (
        "tracking_api",
        "read_pins_as_the_customer",
        "SELECT customer_order__ends({order}, false)",
        (),
    ),
    ("customer", "read_any_photo", "SELECT * FROM order_photo_v1({order})", ()),
    (
        "driver_api",
        "mint_a_customers_token",
        "SELECT replace_customer_token_v1({order}, %s)",
        (HASH,),
    ),
    ("driver_api", "read_watermarks", "SELECT read_watermarks_v2('{{d1}}', '{{b1}}')", ()),
    (
        "driver_api",
        "add_dead_letters",
        "SELECT add_dead_letters_v1('{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')",
        (),
    ),
    ("tracking_api", "cancel_as_the_customer", COMMAND, ("cancel", "customer", "customer")),
    ("tracking_api", "pick_up_as_the_driver", COMMAND, ("pick_up", "driver", "d1")),
    (
        "tracking_api",
        "mint_a_drivers_token_without_a_new_generation",
        "SELECT register_drivers_v1('{{d1}}', '{{d1}}', ARRAY[%s::bytea])",
        (HASH,),
    ),
    (
        "tracking_api",
        "mint_a_staff_token_without_a_name_in_the_audit",
        "SELECT register_staff_token_v1(%s, 'mallory')",
        (HASH,),
    ),
    (
        "tracking_api",
        "write_fixes",
        "SELECT record_fixes_v1()",
        (),
    ),
    ("tracking_api", "read_password_hashes", "SELECT mqtt_hash FROM device_credential", ()),
    ("tracking_api", "read_limits", "SELECT * FROM limits", ()),
    ("tracking_api", "read_the_audit", "SELECT * FROM audit", ()),
    ("customer", "cancel_as_staff", COMMAND, ("cancel", "staff", "mallory")),
    ("customer", "cancel_any_order", COMMAND, ("cancel", "customer", "customer")),
    ("customer", "read_orders", "SELECT * FROM orders", ()),
    ("customer", "read_positions", "SELECT * FROM driver_state", ()),
    ("customer", "find_tokens", "SELECT * FROM find_token_v2(%s)", (HASH,)),
    (
        "customer",
        "mint_a_customers_token",
        "SELECT replace_customer_token_v1({order}, %s)",
        (HASH,),
    ),
    (
        "driver_events",
        "mint_a_customers_token",
        "SELECT replace_customer_token_v1({order}, %s)",
        (HASH,),
    ),
    ("driver_events", "find_tokens", "SELECT * FROM find_token_v2(%s)", (HASH,)),
    ("driver_events", "cancel_as_staff", COMMAND, ("cancel", "staff", "mallory")),
    ("driver_events", "read_orders", "SELECT * FROM orders", ()),
    ("driver_events", "read_payloads_of_the_outbox", "SELECT payload FROM outbox", ()),
    ("driver_events", "read_parked_places", "SELECT lon_deg FROM parked_fix", ()),
    (
        "broker_sync",
        "mint_a_customers_token",
        "SELECT replace_customer_token_v1({order}, %s)",
        (HASH,),
    ),
    (
        "broker_sync",
        "mint_a_staff_token",
        "SELECT change_staff_v1('m', 'add', 'admin', %s, NULL, 'm')",
        (HASH,),
    ),
    (
        "broker_sync",
        "revoke_a_driver",
        "SELECT change_device_v2('driver', 'd1', 'revoke', 'm', NULL, NULL)",
        (),
    ),
    ("broker_sync", "read_credentials", "SELECT * FROM device_credential", ()),
)


@pytest.mark.parametrize(
    ("role", "statement", "parameters"),
    [(role, statement, parameters) for role, _, statement, parameters in ABUSES],
    ids=[f"{role}-{abuse}" for role, abuse, *_ in ABUSES],
)
def test_abuse__by_a_service_role__is_refused(
    fleet: Fleet, role: str, statement: str, parameters: tuple[object, ...]
) -> None:
    order_id = fleet.assigned_order()
    with (
        connect_as(fleet.database, role) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute(statement.format(order=f"'{order_id}'"), parameters)


# -- the page, and all that is not on it -----------------------------------------------------------

# A statement of each kind.
STATEMENTS = {
    "reads": "SELECT {columns} FROM {table} WHERE false",
    "inserts": "INSERT INTO {table} DEFAULT VALUES",
    "updates": "UPDATE {table} SET {column} = NULL WHERE false",
    "deletes": "DELETE FROM {table} WHERE false",
    "truncates": "TRUNCATE {table}",
}
COLUMNS = """
    SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) AS columns,
        c.relkind = 'v' AS is_view, (array_agg(a.attname::text ORDER BY a.attnum)
            FILTER (WHERE a.attidentity = '' AND a.attgenerated = ''))[1] AS plain_column
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'doorstep'::regnamespace AND c.relkind IN ('r', 'p', 'v')
        AND a.attnum > 0 AND NOT a.attisdropped
    GROUP BY c.oid
"""
FUNCTIONS = """
    SELECT p.proname, p.oid::regprocedure::text AS signature, p.proisstrict, p.prorettype::regtype,
        coalesce(array_agg(format_type(t, NULL) ORDER BY n) FILTER (WHERE n IS NOT NULL), '{}')
            AS types
    FROM pg_proc p LEFT JOIN unnest(p.proargtypes) WITH ORDINALITY AS a (t, n) ON true
    WHERE p.pronamespace = 'doorstep'::regnamespace
    GROUP BY p.oid
"""


def granted(section: str) -> dict[str, dict[str, str]]:
    """What a section of the page grants: rights by object and role."""
    body = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    found: dict[str, dict[str, str]] = {}
    holders: list[str] = []
    for line in body.split("```text\n")[1].split("```")[0].splitlines():
        name, _, rights = line.strip().partition(": ")
        if line.startswith(" "):
            found.setdefault(name, {}).update(dict.fromkeys(holders, rights))
        else:
            holders = name.split(", ")
    return found


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_advisory_xact_lock_shared(1, 1)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT pg_logical_emit_message(false, 'a', 'b')",
    ],
)
@pytest.mark.parametrize("role", roles.ROLES)
def test_locks_of_the_server_and_its_disk__by_a_service_role__are_refused(
    database: Database, role: str, statement: str
) -> None:
    with (
        database.connect(role) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute(statement)


def test_lock_of_compaction__by_driver_events__is_taken_without_waiting(database: Database) -> None:
    with database.connect("driver_events") as conn:
        assert conn.execute("SELECT pg_try_advisory_lock(1) AS is_locked").fetchone() is not None


def test_page__of_the_roles__is_what_a_migrated_database_says(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_ADMIN_URL", database.url())
    assert main(["roles"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8")
    assert sorted(granted("Database")) == ["schema doorstep", "schema public", "the database"]


def test_page__a_further_grant__is_no_longer_that_of_the_database(database: Database) -> None:
    for grant in (
        "GRANT UPDATE (state) ON orders TO driver_api",
        "GRANT EXECUTE ON FUNCTION delete_outbox_v1 TO PUBLIC",
        "GRANT driver_events TO driver_api",
    ):
        with database.connect() as conn:
            before = roles.page(conn)
            conn.execute(grant)
            assert roles.page(conn) != before
            conn.rollback()


@pytest.mark.parametrize("role", roles.ROLES)
def test_objects__created_by_a_service_role__are_refused(database: Database, role: str) -> None:
    with connect_as(database, role) as conn:
        for statement in (
            "CREATE TEMP TABLE incoming_fix (n int)",
            "CREATE TABLE public.mine (n int)",
            "CREATE TABLE doorstep.mine (n int)",
            "CREATE SCHEMA mine",
            "CREATE ROLE mine",
        ):
            assert refused(conn, statement), statement


def refused(conn: psycopg.Connection[Any], statement: str) -> bool:
    try:
        conn.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return True
    except psycopg.Error:
        return False
    return False


@pytest.mark.parametrize("role", roles.ROLES)
def test_tables__everything_that_the_page_does_not_grant__is_refused(
    database: Database, role: str
) -> None:
    page = granted("Tables")
    tables = database.rows(COLUMNS)
    assert len(tables) > 40
    allowed, tried = [], 0
    with connect_as(database, role) as conn:
        for row in tables:
            table, columns = row["relname"], row["columns"]
            rights = page.get(table, {}).get(role, "")
            verb, _, some = rights.partition(" ")
            readable = columns if rights == "reads" else some.split(", ") if verb == "reads" else []
            for one in set(columns) - set(readable):
                tried += 1
                if not refused(conn, STATEMENTS["reads"].format(table=table, columns=one)):
                    allowed.append(f"{table}.{one}")
            for one in readable:
                assert not refused(conn, STATEMENTS["reads"].format(table=table, columns=one))
            # these views cannot be written at all, which PostgreSQL says first
            for verb in STATEMENTS.keys() - {"reads"} if not row["is_view"] else ():
                tried += 1
                statement = STATEMENTS[verb].format(table=table, column=row["plain_column"])
                if not refused(conn, statement):
                    allowed.append(f"{verb} {table}")
    assert allowed == []
    assert tried > 200


@pytest.mark.parametrize("role", roles.ROLES)
def test_functions__everything_that_the_page_does_not_grant__is_refused(
    database: Database, role: str
) -> None:
    page = granted("Functions")
    functions = database.rows(FUNCTIONS)
    names = [row["proname"] for row in functions]
    assert len(set(names)) == len(names), "the page cannot tell overloaded functions apart"
    assert not any(row["proisstrict"] for row in functions), "a strict one is not called with nulls"
    allowed, tried = [], 0
    with connect_as(database, role) as conn:
        for row in functions:
            if role in page.get(row["proname"], {}):
                continue
            tried += 1
            nulls = ", ".join(f"NULL::{one}" for one in row["types"])
            if not refused(conn, f"SELECT {row['proname']}({nulls})"):
                allowed.append(row["signature"])
    assert allowed == []
    assert tried > 80
