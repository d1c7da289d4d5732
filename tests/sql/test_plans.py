"""A session keeps its plans: those made while a table was empty must do when it is large."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from doorstep.store import fix_writer
from sql import query
from tests.factories import AWAY, RESTAURANT, make_fix, make_walk, now, numbered
from tests.sql.fleet import Fleet

OTHERS = 400

# What a day leaves behind, of a driver who has nothing to do with the fixes below.
MANY_ORDERS = f"""
WITH made AS (
    INSERT INTO orders (restaurant_id, lon_deg, lat_deg, policy_id)
    SELECT 1, 11.25, 43.77, 1 FROM generate_series(1, {OTHERS}) RETURNING order_id
),
numbered AS (
    SELECT order_id, now() - row_number() OVER () * interval '1 min' AS began_at FROM made
),
assigned AS (
    INSERT INTO assignment (order_id, assignment_no, driver_id, assigned_at, ended_at, ended_by,
        policy_id, restaurant_lon_deg, restaurant_lat_deg, customer_lon_deg, customer_lat_deg)
    SELECT order_id, 1, 'd2', began_at, began_at, 'cancel', 1, 11.25, 43.77, 11.26, 43.78
    FROM numbered
    RETURNING order_id, assigned_at
)
INSERT INTO evidence (order_id, assignment_no, state, occurred_at)
SELECT order_id, 1, state::order_state, assigned_at FROM assigned
CROSS JOIN unnest(ARRAY['at_restaurant', 'picked_up', 'arriving', 'at_customer']) AS u (state)
"""

# Of this session: also what earlier transactions read, until it is handed in.
ROWS_READ = """
SELECT regexp_replace(relname, '_[0-9]+$', '') AS name,
    sum(seq_tup_read)::int AS scanned, sum(idx_tup_fetch)::int AS looked_up
FROM pg_stat_xact_user_tables
WHERE relname ~ '^(evidence|assignment|orders|order_command|fix_history_[0-9]+|order_event'
    '|driver_state|access_token|audit)$'
GROUP BY 1
"""
TABLES = ("evidence", "assignment", "orders", "order_command", "fix_history")
COMMAND_TABLES = (*TABLES, "order_event", "driver_state", "access_token", "audit")
MOST_ROWS = 40  # of all tables, of one command; triggers and foreign keys included


def rows_read(fleet: Fleet) -> dict[str, tuple[int, int]]:
    return {row["name"]: (row["scanned"], row["looked_up"]) for row in fleet.run(ROWS_READ)}


def deliver_an_order(fleet: Fleet, driver_id: str) -> dict[str, tuple[int, int]]:
    """Take an order through all commands; return the rows that each scanned and looked up."""
    read: dict[str, tuple[int, int]] = {}
    order_id: UUID | None = None
    for command in ("create", "confirm", "assign", "reassign", "pick_up", "deliver"):
        with fleet.conn.transaction():
            before = rows_read(fleet)
            if order_id is None:
                order_id = fleet.create_order(key=f"of {driver_id}", who="anna")["order_id"]
            else:
                to_driver = {"assign": driver_id, "reassign": "d3"}.get(command)
                fleet.command_order(order_id, command, driver_id=to_driver, key=command)
            after = rows_read(fleet)
        read[command] = (
            sum(after[name][0] - before[name][0] for name in COMMAND_TABLES),
            sum(after[name][1] - before[name][1] for name in COMMAND_TABLES),
        )
    return read


def test_record_fixes__plans_from_when_all_was_empty__read_by_key(fleet: Fleet) -> None:
    start_at = now() - timedelta(minutes=10)
    fleet.run("VACUUM ANALYZE")  # an operator's, early: it tells the planner how small all is
    order_id = fleet.assigned_order("d1")
    fleet.backdate_assignment(order_id, start_at)
    walk = make_walk(start_at, (RESTAURANT, 60), (AWAY, 100))
    arrival, departure = walk[:15], walk[15:]
    fleet.record(numbered(arrival))  # plans are made
    assert fleet.state(order_id) == "at_restaurant"

    fleet.run(MANY_ORDERS)
    crowd = [
        make_fix(driver_id="d2", seq=n, fix_at=start_at + timedelta(seconds=n / 10))
        for n in range(1, 10 * OTHERS)
    ]
    other = fleet.database.connect(autocommit=True)
    with other.transaction():
        fix_writer.record_fixes(other, numbered(crowd))
    other.close()
    with fleet.conn.transaction():
        before = rows_read(fleet)
        fix_writer.record_fixes(fleet.conn, numbered([*arrival, *departure]))  # half of them again
        after = rows_read(fleet)

    assert fleet.state(order_id) == "picked_up"
    scanned = {name: after[name][0] - before[name][0] for name in TABLES}
    assert scanned == dict.fromkeys(TABLES, 0)
    looked_up = {name: after[name][1] - before[name][1] for name in TABLES}
    assert max(looked_up[name] for name in TABLES if name != "fix_history") < OTHERS, looked_up


def test_record_fixes__over_the_quota__looks_up_its_own_drivers_alone(fleet: Fleet) -> None:
    fleet.add_drivers(*(f"other-{n}" for n in range(OTHERS)), on_duty=False)
    fleet.run("VACUUM ANALYZE")
    at = now()
    flood = [make_fix(seq=n, received_at=at, late_s=n / 10) for n in range(1, 2501)]
    fleet.record(numbered(flood[:2000]))
    with fleet.conn.transaction():
        before = drivers_read(fleet)
        outcomes = fix_writer.record_fixes(fleet.conn, numbered(flood[2000:]))
        after = drivers_read(fleet)
    assert {outcome.reason for outcome in outcomes} == {"over_quota"}
    assert after - before < 10


def drivers_read(fleet: Fleet) -> int:
    """How many rows of driver_state this session has read."""
    [row] = fleet.run(
        "SELECT (seq_tup_read + idx_tup_fetch)::int AS count FROM pg_stat_xact_user_tables"
        " WHERE relname = 'driver_state'"
    )
    return int(row["count"])


def scans_of(fleet: Fleet, table: str) -> int:
    """How many times this session has read a table."""
    [row] = fleet.run(
        "SELECT (seq_scan + coalesce(idx_scan, 0))::int AS count FROM pg_stat_xact_user_tables"
        " WHERE relname = %s",
        table,
    )
    return int(row["count"])


@pytest.mark.parametrize(("seqs", "blocks_read"), [((1, 2), 0), ((1, 3), 1)])
def test_read_watermarks__boot_without_gaps__reads_no_block(
    fleet: Fleet, seqs: tuple[int, ...], blocks_read: int
) -> None:
    at = now()
    fleet.record([make_fix(seq=n, fix_at=at + timedelta(seconds=n - 9)) for n in seqs])
    with fleet.conn.transaction():
        before = scans_of(fleet, "boot_seq_block")
        [mark] = fix_writer.read_watermarks(fleet.conn, [("d1", "b1")])
        after = scans_of(fleet, "boot_seq_block")
    assert (mark.seq, after - before) == (seqs[-1], blocks_read)


@pytest.mark.parametrize(
    ("change", "is_read"), [("order_seq = order_seq + 1", False), ("state = 'picked_up'", True)]
)
def test_orders__update_of_no_state__reads_no_driver(
    fleet: Fleet, change: str, is_read: bool
) -> None:
    order_id = fleet.assigned_order("d1")
    with fleet.conn.transaction():
        before = scans_of(fleet, "driver_state")
        fleet.run(f"UPDATE orders SET {change} WHERE order_id = %s", order_id)
        after = scans_of(fleet, "driver_state")
    assert (after > before) is is_read


# -- reads ------------------------------------------------------------------------------------

PLACED = """
WITH s AS (
    UPDATE driver_state SET duty = 'on_duty', state = 'available', boot = 'b', seq = 1,
        fix_at = now(), received_at = now(), lon_deg = 11.15 + random() * 0.2,
        lat_deg = 43.72 + random() * 0.1
    WHERE driver_id ^@ 'many' RETURNING driver_id, lon_deg, lat_deg
)
INSERT INTO driver_cell (driver_id, cell) SELECT driver_id, cell_of(lon_deg, lat_deg) FROM s
ON CONFLICT (driver_id) DO NOTHING
"""
MANY_TOKENS = """
INSERT INTO access_token (token_sha256, role, order_id)
SELECT sha256(order_id::text::bytea), 'customer', order_id FROM orders
"""
READ_TABLES = """
SELECT relname AS name, seq_tup_read::int AS scanned FROM pg_stat_xact_user_tables
WHERE relname IN ('driver_state', 'driver_cell', 'orders', 'assignment', 'access_token',
    'order_event', 'evidence', 'driver_clock') OR relname ^@ 'fix_history'
"""
READS = {
    "customer_tracks_v2": (
        "SELECT * FROM customer_tracks_v2(ARRAY(SELECT token_sha256 FROM link),"
        " ARRAY(SELECT order_id FROM link), NULL, NULL, NULL)"
    ),
    "find_tokens_v1": "SELECT * FROM find_tokens_v1(ARRAY(SELECT token_sha256 FROM link))",
    "nearest_drivers_v1": query("read_nearest_drivers", "queries/fleet.sql").replace(
        "%(lon_deg)s, %(lat_deg)s, %(limit)s", "11.25, 43.77, 10"
    ),
    "fleet_tile_v1": (
        "SELECT fleet_tile_v1(15, 17407, 11950, NULL, NULL, NULL, 45, 300, 0.5, 1000)"
    ),
}


@pytest.mark.parametrize("name", READS)
def test_reads__plans_from_when_all_was_empty__scan_no_table(fleet: Fleet, name: str) -> None:
    fleet.run("VACUUM ANALYZE")
    order_id = fleet.assigned_order("d1")
    fleet.run(
        "CREATE TEMP TABLE link AS SELECT sha256(order_id::text::bytea) AS token_sha256, order_id"
        " FROM orders WHERE order_id = %s",
        order_id,
    )
    fleet.run(READS[name])  # plans are made
    fleet.run(MANY_ORDERS)
    fleet.add_drivers(*(f"many{n}" for n in range(3000)), on_duty=False)
    fleet.run(PLACED)
    fleet.run(MANY_TOKENS)
    with fleet.conn.transaction():
        before = {row["name"]: row["scanned"] for row in fleet.run(READ_TABLES)}
        found = fleet.run(READS[name])
        scanned = {
            row["name"]: row["scanned"] - before.get(row["name"], 0)
            for row in fleet.run(READ_TABLES)
        }
    assert len(found) >= 1
    assert max(scanned.values()) <= 10, scanned


def test_commands__plans_from_when_all_was_empty__read_few_rows(fleet: Fleet) -> None:
    fleet.run("VACUUM ANALYZE")
    fleet.add_drivers("d3")
    deliver_an_order(fleet, "d1")  # plans are made
    fleet.add_drivers(*(f"other-{n}" for n in range(OTHERS)))
    fleet.run(MANY_ORDERS)  # of d2
    start_at = now() - timedelta(minutes=10)
    fleet.record(numbered(make_walk(start_at, (RESTAURANT, 60), (AWAY, 100), driver_id="d2")))

    read = deliver_an_order(fleet, "d2")

    assert {command: scanned for command, (scanned, _) in read.items()} == dict.fromkeys(read, 0)
    assert max(looked_up for _, looked_up in read.values()) <= MOST_ROWS, read
