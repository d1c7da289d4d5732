"""A small fleet in a test's database: one restaurant, drivers, orders, and the door for fixes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from data import BUNDLED_CITY
from doorstep.credentials import token_sha256
from doorstep.store import admin, fix_writer
from doorstep.store.error_mapping import translated
from doorstep.store.records import IncomingRow, Outcome
from sql import query
from tests.database import Database
from tests.factories import CUSTOMER, RESTAURANT, Place

# Both are the owner's: services have a function per actor.
APPLY_ORDER_COMMAND = (
    "SELECT * FROM apply_order_command_v1(%(order_id)s, %(command)s, %(actor)s, %(actor_id)s,"
    " %(driver_id)s, %(idempotency_key)s)"
)
APPLY_DRIVER_COMMAND = (
    "SELECT driver_id, duty, state, order_id"
    " FROM apply_driver_command_v1(%(driver_id)s, %(command)s, %(actor)s, %(idempotency_key)s)"
)


class Fleet:
    """Calls the database as its services do; every call is one committed transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.conn = database.connect(autocommit=True)
        admin.register_service_area(
            self.conn, BUNDLED_CITY, west=11.1, south=43.7, east=11.4, north=43.9
        )
        admin.register_restaurants(self.conn, [admin.NewRestaurant(1, "Da Mario", *RESTAURANT)])

    def close(self) -> None:
        self.conn.close()

    def add_drivers(self, *driver_ids: str, on_duty: bool = True) -> None:
        admin.register_drivers(
            self.conn, [admin.NewDriver(driver_id, driver_id, None) for driver_id in driver_ids]
        )
        for driver_id in driver_ids if on_duty else ():
            self.command_driver(driver_id, "on_duty")

    def add_token(self, driver_id: str) -> None:
        """Give a driver a token: its own id."""
        self.run(
            "INSERT INTO access_token (token_sha256, role, driver_id) VALUES (%s, 'driver', %s)",
            token_sha256(driver_id),
            driver_id,
        )

    def command_driver(
        self, driver_id: str, command: str, key: str | None = None
    ) -> dict[str, Any]:
        return self._call(
            APPLY_DRIVER_COMMAND,
            driver_id=driver_id,
            command=command,
            actor="driver",
            idempotency_key=key,
        )

    def create_order(
        self,
        *,
        customer: Place = CUSTOMER,
        policy_id: int | None = None,
        key: str | None = None,
        token_sha256: bytes | None = None,
        restaurant_id: int = 1,
        who: str | None = None,
    ) -> dict[str, Any]:
        return self._call(
            query("create_order"),
            restaurant_id=restaurant_id,
            pickup=None,
            lon_deg=customer.lon_deg,
            lat_deg=customer.lat_deg,
            token_sha256=token_sha256 or secrets.token_bytes(32),
            policy_id=policy_id,
            idempotency_key=key,
            customer_name=None,
            details=None,
            who=who,
        )

    def command_order(
        self,
        order_id: UUID,
        command: str,
        *,
        actor: str = "staff",
        actor_id: str = "staff",
        driver_id: str | None = None,
        key: str | None = None,
    ) -> dict[str, Any]:
        return self._call(
            APPLY_ORDER_COMMAND,
            order_id=order_id,
            command=command,
            actor=actor,
            actor_id=actor_id,
            driver_id=driver_id,
            idempotency_key=key,
        )

    def assigned_order(self, driver_id: str = "d1", **options: Any) -> UUID:
        """Create, confirm and assign an order to a driver."""
        order_id: UUID = self.create_order(**options)["order_id"]
        self.command_order(order_id, "confirm")
        self.command_order(order_id, "assign", driver_id=driver_id)
        return order_id

    def offer_order(
        self,
        order_id: UUID,
        driver_id: str | None = None,
        *,
        key: str | None = None,
        name: str = "anna",
    ) -> dict[str, Any]:
        """Offer an order to a driver, or to the nearest."""
        return self._call(
            query("offer_order", "queries/offers.sql"),
            order_id=order_id,
            driver_id=driver_id,
            name=name,
            idempotency_key=key,
        )

    def expire_offer(self, order_id: UUID) -> None:
        """Turn the clock: the open offer has expired."""
        self.run(
            "UPDATE order_offer SET offered_at = now() - interval '2 min',"
            " expires_at = now() - interval '1 min' WHERE order_id = %s AND ended_at IS NULL",
            order_id,
        )

    def backdate_assignment(self, order_id: UUID, assigned_at: datetime) -> None:
        """Move an assignment's start into the past, to make room for fixes.

        This turns the clock back; the fixes of a test can then be dated up to now.
        """
        self.run(
            "UPDATE assignment SET assigned_at = %s WHERE order_id = %s AND ended_at IS NULL",
            assigned_at,
            order_id,
        )

    def backdate_pick_up(self, order_id: UUID, commanded_at: datetime) -> None:
        """Move the command to pick up into the past, before anything was proved after it."""
        self.run(
            "UPDATE order_command SET commanded_at = %s WHERE order_id = %s"
            " AND command = 'pick_up'",
            commanded_at,
            order_id,
        )
        self.run(
            "UPDATE assignment SET picked_up_at = %s WHERE order_id = %s AND ended_at IS NULL",
            commanded_at,
            order_id,
        )

    def record(self, rows: Iterable[IncomingRow]) -> list[Outcome]:
        with self.conn.transaction():
            return fix_writer.record_fixes(self.conn, rows)

    def limit_orders(self, max_open_orders: int) -> None:
        """Let a driver have so many open orders."""
        self.run("UPDATE limits SET max_open_orders = %s", max_open_orders)

    def state(self, order_id: UUID) -> str:
        value: str = self.run("SELECT state FROM orders WHERE order_id = %s", order_id)[0]["state"]
        return value

    def evidence(self, order_id: UUID) -> dict[tuple[int, str], datetime]:
        rows = self.run("SELECT * FROM evidence WHERE order_id = %s", order_id)
        return {(row["assignment_no"], row["state"]): row["occurred_at"] for row in rows}

    def events(self, order_id: UUID) -> list[tuple[int, int, str, str]]:
        rows = self.run(
            "SELECT * FROM order_event WHERE order_id = %s ORDER BY order_seq", order_id
        )
        return [
            (row["order_seq"], row["assignment_no"], row["state"], row["source"]) for row in rows
        ]

    def driver(self, driver_id: str = "d1") -> dict[str, Any]:
        """Read a driver's row, without what every copy of a fix moves."""
        columns = self.run(
            "SELECT string_agg(attname, ', ' ORDER BY attnum) AS names FROM pg_attribute"
            " WHERE attrelid = 'driver_state'::regclass AND attnum > 0"
            " AND attname NOT IN ('quota_at', 'kept_from', 'settled_to', 'is_in_new_cell')"
        )[0]["names"]
        [row] = self.run(f"SELECT {columns} FROM driver_state WHERE driver_id = %s", driver_id)
        return row

    def history(self, *columns: str) -> list[tuple[Any, ...]]:
        names = ", ".join(columns) or "driver_id, boot, seq, fix_at, quarantine"
        rows = self.run(f"SELECT {names} FROM fix_history ORDER BY driver_id, fix_at, boot, seq")
        return [tuple(row.values()) for row in rows]

    def run(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        with translated(), self.conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def _call(self, statement: LiteralString, **parameters: object) -> dict[str, Any]:
        with translated(), self.conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(statement, parameters)
            row = cursor.fetchone()
            assert row is not None
            return row


def connect_as(database: Database, role: str) -> psycopg.Connection[Any]:
    """Open a service's connection."""
    return database.connect(role, autocommit=True)
