"""A database at revision 0001 with a few days of data, written by the functions of 0001.

The SQL is that of 0001, not of sql/queries.sql, which follows the newest revision.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from data import BUNDLED_CITY
from doorstep.store.records import IncomingRow
from sql.migrate import upgrade
from tests.database import Database
from tests.factories import AWAY, CUSTOMER, RESTAURANT, make_fix, make_walk, now, numbered

DRIVERS = ("d1", "d2", "d3", "d4", "d5", "d6", "idle")
MIDNIGHT = datetime.combine(now().date(), datetime.min.time(), UTC)
PACKED_DAY = MIDNIGHT - timedelta(days=10)
UNPACKED_DAY = MIDNIGHT - timedelta(days=2)
# d1's boot b1 at the end: 1 to 40 and 51 to 90 are stored, 91 is rejected
STORED_SEQS = 90
FIRST_MISSING, LAST_MISSING = 41, 50
REJECTED_SEQ = 91

_COPY = """COPY pg_temp.incoming_fix (n, driver_id, boot, seq, fix_at, received_at, lon_deg,
    lat_deg, accuracy_m, speed_mps, heading_deg, altitude_m, battery, reason) FROM STDIN"""
_COPY_POINTS = "COPY pg_temp.incoming_point (n, name, at, value) FROM STDIN"


class FirstRevision:
    """Writes through the functions of 0001 as the owner, one transaction per call."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.conn = database.connect(autocommit=True)

    def run(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        with self.conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *parameters: object) -> Any:
        [row] = self.run(statement, *parameters)
        [value] = row.values()
        return value

    def record(self, rows: Iterable[IncomingRow]) -> list[tuple[str, str]]:
        """Record a batch of fixes; return the outcomes that the function names."""
        with self.conn.transaction(), self.conn.cursor() as cursor:
            cursor.execute("SELECT prepare_incoming_v1()")
            with cursor.copy(_COPY) as copy:
                for row in rows:
                    copy.write_row(row)
            cursor.execute("SELECT outcome, reason FROM record_fixes_v1()")
            return cursor.fetchall()

    def command(self, order_id: UUID, command: str, driver_id: str | None = None) -> None:
        self.run(
            "SELECT apply_order_command_v1(%s, %s, 'staff', 'anna', %s, %s)",
            *(order_id, command, driver_id, secrets.token_hex(8)),
        )

    def order(self, *commands: str, driver_id: str | None = None) -> UUID:
        """Create an order, and apply commands to it."""
        order_id: UUID = self.value(
            "SELECT order_id FROM create_order_v1(1, %s, %s, %s, NULL, %s, 'Rosa')",
            *(*CUSTOMER, secrets.token_bytes(32), secrets.token_hex(8)),
        )
        for command in commands:
            self.command(order_id, command, driver_id if command == "assign" else None)
        return order_id

    def ride(self, driver_id: str, *stays: tuple[Any, float]) -> UUID:
        """Create an order that began 20 minutes ago, and record the driver's fixes for it."""
        order_id = self.order("confirm", "assign", driver_id=driver_id)
        self.run(
            "UPDATE assignment SET assigned_at = %s WHERE order_id = %s AND ended_at IS NULL",
            *(now() - timedelta(minutes=20), order_id),
        )
        start_at = now() - timedelta(minutes=15)
        assert self.record(make_walk(start_at, *stays, driver_id=driver_id, boot="ride")) == []
        return order_id


def create_first_revision(database: Database) -> None:
    """Upgrade an empty database to 0001 and fill it."""
    upgrade(database.url(), "0001")
    writer = FirstRevision(database)
    try:
        _register(writer)
        _write_history(writer)
        _write_orders(writer)
        _write_kafka_and_sampling(writer)
        _write_series(writer)
        _park(writer)
    finally:
        writer.conn.close()


def _register(writer: FirstRevision) -> None:
    writer.run("SELECT register_restaurants_v1('{1}', '{Da Mario}', %s, %s)", *_lists(RESTAURANT))
    writer.run("SELECT register_service_area_v1(%s, 11.1, 43.7, 11.4, 43.9)", BUNDLED_CITY)
    tokens = [secrets.token_bytes(32) for _ in DRIVERS]
    writer.run("SELECT register_drivers_v1(%s, %s, %s)", list(DRIVERS), list(DRIVERS), tokens)
    writer.run("SELECT register_staff_token_v1(%s, 'anna')", secrets.token_bytes(32))
    writer.run("SELECT create_policy_v1(%s)", Jsonb({"name": "fast", "pace": 10}))
    for driver_id in DRIVERS[:-1]:
        writer.run("SELECT apply_driver_command_v1(%s, 'on_duty', 'driver', 'k')", driver_id)
    writer.run("SELECT apply_driver_command_v1('d6', 'on_break', 'driver', NULL)")


def _write_history(writer: FirstRevision) -> None:
    """A packed day, a sealed day to be packed, and a day that still takes fixes."""
    days = {PACKED_DAY: "old", PACKED_DAY + timedelta(days=1): "old", UNPACKED_DAY: "b0"}
    for day, boot in days.items():
        writer.run("SELECT fix_history__ensure_partitions_v1(%s, %s)", day.date(), day.date())
        first_seq = 1 + 200 * (day - PACKED_DAY).days
        for driver_id in ("d1", "d2"):
            rows = [
                make_fix(
                    driver_id,
                    first_seq + n,
                    n=n,
                    boot=boot,
                    place=AWAY.north(n),
                    received_at=day + timedelta(hours=9, seconds=4 * n),
                    late_s=0.5,
                    speed_mps=3.5,
                    battery=0.9,
                    accuracy_m=500.0 if n % 50 == 7 else 5.0,
                )
                for n in range(200)
            ]
            assert {outcome for outcome, _ in writer.record(rows)} == {"quarantined"}
    writer.value("SELECT fix_history__seal_v1(%s)", PACKED_DAY + timedelta(days=2))
    day = PACKED_DAY.date()
    assert writer.run("SELECT * FROM fix_history__pack_v1(%s, NULL, 10)", day)[0]["fixes"] == 400
    assert writer.value("SELECT fix_history__switch_v1(%s)", day) == 400
    while writer.value("SELECT fix_history__drop_packed_v1()") > 0:  # another session may read
        time.sleep(0.1)

    # today: d1's boot has a gap, a rejected fix and a conflict
    start_at = now() - timedelta(minutes=40)
    today = [
        make_fix("d1", seq, place=AWAY.north(seq), received_at=start_at + timedelta(seconds=seq))
        for seq in range(1, STORED_SEQS + 1)
        if not FIRST_MISSING <= seq <= LAST_MISSING
    ]
    assert writer.record(numbered(today)) == []
    bad = make_fix("d1", REJECTED_SEQ, received_at=now(), fix_at=now() + timedelta(hours=1))
    assert writer.record([bad]) == [("rejected", "in_the_future")]
    assert writer.record([today[0]]) == [("duplicate", None)]
    assert writer.record([make_fix("idle", None, boot=None, late_s=900)]) == []


def _write_orders(writer: FirstRevision) -> None:
    """An order in every state, with evidence, ended assignments, and revoked tokens."""
    door = RESTAURANT.north(600)
    writer.order()
    writer.order("confirm")
    writer.order("confirm", "cancel")
    writer.ride("d1", (RESTAURANT, 100))
    writer.ride("d2", (RESTAURANT, 100), (door, 100))
    writer.ride("d3", (RESTAURANT, 100), (door, 100), (CUSTOMER.north(300), 60))
    writer.ride("d4", (RESTAURANT, 100), (door, 100), (CUSTOMER, 100))
    delivered = writer.ride("d5", (RESTAURANT, 100), (door, 100), (CUSTOMER, 100))
    writer.command(delivered, "deliver")
    failed = writer.order("confirm", "assign", "pick_up", "fail", driver_id="d5")
    writer.run("SELECT replace_customer_token_v1(%s, %s)", failed, secrets.token_bytes(32))
    declined = writer.order("confirm", "assign", driver_id="d5")
    writer.run("SELECT apply_order_command_v1(%s, 'decline', 'driver', 'd5', NULL, NULL)", declined)
    writer.command(declined, "assign", "d5")
    states = writer.run("SELECT DISTINCT state::text FROM orders")
    assert {row["state"] for row in states} == {
        *("created", "confirmed", "cancelled", "assigned", "at_restaurant", "picked_up"),
        *("arriving", "at_customer", "delivered", "failed"),
    }


def _write_kafka_and_sampling(writer: FirstRevision) -> None:
    writer.run("SELECT open_offsets_v1('c1', 't1', '{0,1}')")
    writer.run("SELECT advance_offsets_v1('c1', 't1', '{0,1}', '{0,0}', '{1000,2000}')")
    writer.run(
        "SELECT add_dead_letters_v1(%s, %s, %s, %s, %s, %s, %s)",
        *([b"\xff"], ["d1"], ["not_json"], ["mqtt"], ["driver-pos"], ["at 0"], [1]),
    )
    for mode in ("time", "distance"):
        writer.run("SELECT driver_reporting__set_v1('d1', %s)", Jsonb({"mode": mode}))
    writer.run("SELECT driver_reporting__set_v1('d2', %s)", Jsonb({"mode": "time"}))
    writer.run("SELECT driver_reporting__confirm_v1('{d1}', '{2}')")


def _write_series(writer: FirstRevision) -> None:
    points = [(n, "box/temp_c", now() - timedelta(seconds=60 - n), n / 3) for n in range(60)]
    with writer.conn.transaction(), writer.conn.cursor() as cursor:
        cursor.execute("SELECT series__prepare_v1()")
        with cursor.copy(_COPY_POINTS) as copy:
            for point in points:
                copy.write_row(point)
        cursor.execute("SELECT * FROM series__record_v1()")
        assert cursor.fetchall() == []
    writer.run("SELECT simulation__set_v1('couriers', 7)")
    model = {
        "learned_at": now().isoformat(),
        "rides": 12,
        "crossing_s": 4.5,
        "arrival_s": 30,
        "wait_s": [60] * 21,
        "ways": "speeds",
        "street_speeds": [{"street_class": "primary", "hour": 9, "mps": 7.5, "metres": 100}],
        "driver_pace": {"d1": 1.1},
        "bands": [
            {"phase": "to_customer", "up_to_s": 1e9, "p10": 0.8, "p50": 1, "p90": 1.3, "samples": 9}
        ],
    }
    writer.run("SELECT eta_model__add_v1(%s)", Jsonb(model))


def _park(writer: FirstRevision) -> None:
    """Record a fix of a driver whose row another transaction has locked."""
    with writer.database.connect() as other:
        other.execute("SELECT FROM driver_state WHERE driver_id = 'd6' FOR UPDATE")
        assert writer.record([make_fix("d6", 1, late_s=5)]) == [("parked", "locked")]


def _lists(place: Any) -> tuple[list[float], list[float]]:
    return [place.lon_deg], [place.lat_deg]


def rows_of(conn: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """Return the rows of every table as sorted JSON; partitions are part of their parent."""
    tables = conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'doorstep'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname"
    ).fetchall()
    return {
        table: [
            row
            for (row,) in conn.execute(
                f"SELECT to_jsonb(t)::text FROM doorstep.{table} t ORDER BY 1"
            )
        ]
        for (table,) in tables
    }
