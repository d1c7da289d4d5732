"""What each database role may do: docs/reference/database-roles.md, and nothing else.

The page is compared with a migrated database, and everything that it does not grant is tried.
"""

from __future__ import annotations

import psycopg
import pytest

from tests.sql.fleet import Fleet, connect_as

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
    (
        "driver_api",
        "mint_a_customers_token",
        "SELECT replace_customer_token_v1({order}, %s)",
        (HASH,),
    ),
    ("driver_api", "read_watermarks", "SELECT read_watermarks_v1('{{d1}}', '{{b1}}')", ()),
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
        "mint_a_drivers_token",
        "SELECT register_device_tokens_v1('{{d1}}', '{{0}}', ARRAY[%s::bytea])",
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
    ("tracking_api", "read_generations", "SELECT generation FROM device_credential", ()),
    ("tracking_api", "read_search_cells", "SELECT * FROM driver_cell", ()),
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
        "SELECT change_device_v1('driver', 'd1', 'revoke', 'm')",
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
