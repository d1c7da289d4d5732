"""The database's side of a case: its doors, its commands, and all that it shows afterwards."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row, tuple_row

from data import BUNDLED_CITY
from doorstep.errors import DoorstepError
from doorstep.store import admin, fix_writer
from doorstep.store.error_mapping import translated
from doorstep.store.records import INCOMING_TYPES
from ops.stack.postgres import OWNER
from sql import query
from tests.database import Database
from tests.property.doors import Became, HttpDoor, rows_of
from tests.property.records import Fix, Place, Policy
from tests.property.steps import AREA, RESTAURANT
from tests.sql.fleet import APPLY_DRIVER_COMMAND, APPLY_ORDER_COMMAND

QUICK = {
    "name": "quick",
    "dwell_min_s": 10,
    "dwell_max_s": 40,
    "leave_min_s": 10,
    "leave_max_s": 40,
    "arriving_min_s": 5,
    "worst_accuracy_m": 50,
}
# Commands read the database's clock. Here that clock is a setting: it shadows clock_timestamp()
# for the functions that ask for the instant of a command. What evidence takes for the present is a
# row, because it must be the same for all sessions.
TEST_CLOCK = """
    CREATE FUNCTION doorstep.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    RETURN current_setting('test.now')::timestamptz;
    GRANT EXECUTE ON FUNCTION doorstep.clock_timestamp() TO PUBLIC;
    ALTER FUNCTION apply_order_command_v1 SET search_path = doorstep, pg_catalog, public, pg_temp;
    ALTER FUNCTION set_driver_stops_v1 SET search_path = doorstep, pg_catalog, public, pg_temp;
    CREATE TABLE doorstep.test_now AS SELECT '-infinity'::timestamptz AS now;
    GRANT SELECT ON doorstep.test_now TO PUBLIC;
    CREATE OR REPLACE FUNCTION evidence__counts_before() RETURNS timestamptz LANGUAGE sql
    RETURN (SELECT now FROM doorstep.test_now);
    ALTER FUNCTION nearest_drivers_v2 SET search_path = doorstep, pg_catalog, public, pg_temp;
    ALTER FUNCTION customer_tracks_v1 SET search_path = doorstep, pg_catalog, public, pg_temp;
    ALTER FUNCTION customer_tracks_v3 SET search_path = doorstep, pg_catalog, public, pg_temp;
    ALTER FUNCTION customer_polls_v1 SET search_path = doorstep, pg_catalog, public, pg_temp;
    ALTER FUNCTION customer_history_v1 SET search_path = doorstep, pg_catalog, public, pg_temp;
    ALTER TABLE orders ALTER state_at SET DEFAULT doorstep.clock_timestamp();
    ALTER TABLE orders ALTER created_at SET DEFAULT doorstep.clock_timestamp();
    ALTER TABLE driver_command ALTER commanded_at SET DEFAULT doorstep.clock_timestamp();
"""
STATEMENT_TIMEOUT_MS = 15_000  # a lock that is never released; a busy machine takes its time


Instants = tuple[datetime | None, datetime | None]  # fix_at, received_at


class Shown(NamedTuple):
    """The fixes that a customer sees."""

    history: list[Instants]
    position: Instants
    polled: Instants
    trail: list[Instants]


class Fleet:
    """One database for many cases; each case has drivers and orders of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.owner = database.connect(autocommit=True, row_factory=dict_row)
        self.owner.execute(TEST_CLOCK)
        # Cases replay fixes whose arrivals are hours apart: no quota for them.
        self.owner.execute("UPDATE limits SET quota_burst = 1000000000")
        self.batch_door = self._service("driver_events")
        self.second_batch_door = self._service("driver_events")
        self.http_door = HttpDoor(database.url("driver_api"))
        self.commands = self._service(OWNER)
        self.customers = self._service("tracking_api")
        self.links = self._service("customer")
        admin.register_restaurants(
            self.owner,
            [admin.NewRestaurant(1, "Da Mario", RESTAURANT.lon_deg, RESTAURANT.lat_deg)],
        )
        west, south, east, north = AREA
        admin.register_service_area(
            self.owner, BUNDLED_CITY, west=west, south=south, east=east, north=north
        )
        made = self._one(self.owner, "SELECT create_policy_v1(%s) AS id", [json.dumps(QUICK)])
        quick = {name: value for name, value in QUICK.items() if name != "name"}
        self.policies = (Policy(), Policy(policy_id=made["id"], **quick))  # type: ignore[arg-type]
        self._tokens: dict[UUID, bytes] = {}
        self._names = count(1)
        self._spare: list[str] = []
        self._ties: dict[Place, int] = {}
        self._writers = ThreadPoolExecutor(2)

    def close(self) -> None:
        self._writers.shutdown()
        self.http_door.close()
        for conn in (self.owner, self.batch_door, self.second_batch_door):
            conn.close()
        self.commands.close()
        self.customers.close()
        self.links.close()

    def _service(self, role: str) -> psycopg.Connection[Any]:
        conn = self.database.connect(role, autocommit=True, row_factory=dict_row)
        conn.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
        return conn

    def _one(
        self, conn: psycopg.Connection[Any], statement: Any, parameters: Any
    ) -> dict[str, Any]:
        with translated():
            row: dict[str, Any] | None = conn.execute(statement, parameters).fetchone()
        assert row is not None
        return row

    # -- making and commanding ---------------------------------------------------------------

    def take_drivers(self, how_many: int, at: datetime) -> list[str]:
        """Give drivers on duty, since `at`, that no case has had."""
        if len(self._spare) < how_many:
            self._set_clock(self.owner, at)
            self._spare = [f"d{next(self._names)}" for _ in range(150)]
            admin.register_drivers(self.owner, [admin.NewDriver(d, d, None) for d in self._spare])
            self.owner.execute(
                "SELECT apply_driver_command_v1(d, 'on_duty', 'driver', NULL)"
                " FROM unnest(%s::text[]) d",
                [self._spare],
            )
        return [self._spare.pop() for _ in range(how_many)]

    def retire(self, drivers: Sequence[str]) -> None:
        """Hide the drivers of a finished case from searches, and seal nothing."""
        self.owner.execute("DELETE FROM driver_cell WHERE driver_id = ANY (%s)", [list(drivers)])
        self.seal(None)

    def seal(self, before: datetime | None) -> None:
        self.owner.execute("UPDATE history_bounds SET sealed_before = %s", [before or "-infinity"])

    def create_order(
        self, customer: Place, policy_id: int, at: datetime, restaurant_id: int = 1
    ) -> UUID:
        self._set_clock(self.customers, at)
        token_sha256 = secrets.token_bytes(32)
        parameters = {
            "restaurant_id": restaurant_id,
            "pickup": None,
            **asdict(customer),
            "token_sha256": token_sha256,
            "policy_id": policy_id,
            "idempotency_key": None,
            "customer_name": None,
            "details": None,
            "who": None,
        }
        order_id: UUID = self._one(self.customers, query("create_order"), parameters)["order_id"]
        self._tokens[order_id] = token_sha256
        return order_id

    def command_order(self, at: datetime, *, stop_no: int | None = None, **parameters: Any) -> str:
        """Apply a command; return the state shown, or the name of the refusal."""
        conn = self.commands
        self._set_clock(conn, at)
        wanted = "" if stop_no is None else str(stop_no)
        conn.execute("SELECT set_config('doorstep.stop_no', %s, false)", [wanted])
        is_inside = conn.info.transaction_status == TransactionStatus.INTRANS
        try:
            with conn.transaction() if is_inside else nullcontext():
                row = self._one(conn, APPLY_ORDER_COMMAND, parameters)
        except DoorstepError as exc:
            return type(exc).__name__
        return str(row["state"])

    def pass_time(self, at: datetime) -> None:
        """Let the present of evidence be this instant, and derive what was waiting for it."""
        self.owner.execute("UPDATE test_now SET now = %s", [at])
        while self._one(self.owner, "SELECT evidence__settle_v1(100) AS n", [])["n"]:
            pass

    def reorder(self, at: datetime, driver_id: str, order_ids: list[UUID]) -> str:
        """Put a driver's stops into a sequence; return '', or the name of the refusal."""
        self._set_clock(self.commands, at)
        try:
            self._one(
                self.commands,
                "SELECT set_driver_stops_v1(%s, %s, NULL)",
                [driver_id, order_ids],
            )
        except DoorstepError as exc:
            return type(exc).__name__
        return ""

    def offer(self, order_id: UUID, driver_id: str) -> None:
        """Offer a confirmed order to a driver, instead of whom it is offered to."""
        self.commands.execute(
            "UPDATE order_offer SET ended_at = expires_at, outcome = 'expired'"
            " WHERE order_id = %s AND ended_at IS NULL",
            [order_id],
        )
        self.commands.execute(
            "INSERT INTO order_offer (order_id, driver_id, offered_at, expires_at)"
            " VALUES (%s, %s, '-infinity', 'infinity')",
            [order_id, driver_id],
        )

    def show(self, order_id: UUID, at: datetime, *, is_open: bool) -> None:
        """Open or close a range, as commands on a courier's other orders do."""
        self.owner.execute(
            "UPDATE assignment SET visible = CASE WHEN %s"
            " THEN visible + tstzmultirange(tstzrange(%s, NULL))"
            " ELSE visible - tstzmultirange(tstzrange(%s, NULL)) END"
            " WHERE order_id = %s AND ended_at IS NULL",
            [is_open, at, at, order_id],
        )

    def shown_to(self, order_id: UUID, at: datetime) -> Shown:
        """What the customer of an order sees: each way to look, by the role of customers."""
        self._set_clock(self.links, at)
        link = {"token_sha256": self._tokens[order_id], "order_id": order_id}
        links = {"token_sha256s": [self._tokens[order_id]], "order_ids": [order_id]}
        page = dict.fromkeys(("since", "before", "after_fix_at", "after_boot", "after_seq"))
        history = self.links.execute(query("customer_history"), {**link, **page, "at_most": 5000})
        fixes = [(row["fix_at"], row["received_at"]) for row in history]
        track = self._one(self.links, query("customer_tracks"), links)
        self._check_service_reads_the_same(links, track)
        poll = self._one(self.links, query("customer_polls"), links)
        trail = zip(track["trail_fix_at"] or (), track["trail_received_at"] or (), strict=True)
        return Shown(
            fixes,
            (track["fix_at"], track["received_at"]),
            (poll["fix_at"], poll["received_at"]),
            list(trail),
        )

    def _check_service_reads_the_same(self, links: dict[str, Any], track: dict[str, Any]) -> None:
        """Compare what tracking_api reads (customer_tracks_v3) with customer_tracks_v1."""
        nothing = dict.fromkeys(
            ("known_order_seqs", "known_stamps", "estimated_order_seqs", "estimated_fix_ats")
        )
        found = self._one(
            self.links, query("read_customer_tracks", "queries/customers.sql"), links | nothing
        )
        same = ("order_seq", "driver_id", "fix_at", "received_at", "lon_deg", "lat_deg")
        trail = [datetime.fromisoformat(one[0]) for one in json.loads(found["trail"] or "[]")]
        if [found[one] for one in same] != [track[one] for one in same]:
            raise ValueError(f"customer_tracks_v3 shows {found}, v1 {track}")
        recent_at = found["now"] - timedelta(minutes=5)
        newest_is_recent = found["fix_at"] is not None and found["fix_at"] > recent_at
        if newest_is_recent and trail != (track["trail_fix_at"] or []):
            raise ValueError(f"customer_tracks_v3 has the trail {trail}, v1 {track}")

    def command_driver(self, at: datetime, driver_id: str, command: str) -> str:
        self._set_clock(self.commands, at)
        parameters = {"driver_id": driver_id, "command": command, "actor": "driver"}
        parameters["idempotency_key"] = None  # type: ignore[assignment]
        try:
            row = self._one(self.commands, APPLY_DRIVER_COMMAND, parameters)
        except DoorstepError as exc:
            return type(exc).__name__
        return str(row["state"])

    @staticmethod
    def _set_clock(conn: psycopg.Connection[Any], at: datetime) -> None:
        conn.execute("SELECT set_config('test.now', %s, false)", [at.isoformat()])

    # -- fixes -------------------------------------------------------------------------------

    def record(self, conn: psycopg.Connection[Any], fixes: Sequence[Fix]) -> dict[int, Became]:
        """Record a batch; return what became of each that was not committed."""
        rows, refused = rows_of(fixes)
        with conn.transaction():
            return refused | {
                o.n: (o.outcome, o.reason) for o in fix_writer.record_fixes(conn, rows)
            }

    def overtake(
        self, first: Sequence[Fix], second: Sequence[Fix]
    ) -> tuple[dict[int, Became], dict[int, Became]]:
        """Bring the second batch as far as the write door, record the first, let the second in."""
        rows, refused = rows_of(second)
        conn = self.second_batch_door
        with conn.transaction(), conn.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(query("prepare_incoming"))
            with cursor.copy(query("copy_incoming")) as copy:
                copy.set_types(INCOMING_TYPES)
                for row in rows:
                    copy.write_row(row)
            seen_first = self.record(self.batch_door, first)
            cursor.execute(query("record_fixes"))
            return seen_first, refused | {n: (outcome, reason) for n, outcome, reason in cursor}

    def race(self, first: Sequence[Fix], second: Sequence[Fix], size: int) -> set[str]:
        """Record from two threads at once, `size` fixes a transaction; return the outcomes."""

        def write_all(conn: psycopg.Connection[Any], fixes: Sequence[Fix]) -> set[str]:
            parts = [fixes[n : n + size] for n in range(0, len(fixes), size)]
            return {became[0] for part in parts for became in self.record(conn, part).values()}

        other = self._writers.submit(write_all, self.second_batch_door, second)
        return write_all(self.batch_door, first) | other.result()

    def tie_of(self, place: Place) -> int:
        """The number that stands for a place in the identity of a fix without one."""
        if place not in self._ties:
            found = self._one(
                self.owner,
                "SELECT hashtextextended((%s::float8 + 0.0)::text || ' '"
                " || (%s::float8 + 0.0)::text, 0) & 9223372036854775807 AS tie",
                [place.lon_deg, place.lat_deg],
            )
            self._ties[place] = found["tie"]
        return self._ties[place]

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self.owner.cursor(row_factory=tuple_row) as cursor:
            return cursor.execute(statement, parameters).fetchall()

    def answers(self, asked: Sequence[tuple[str, object]]) -> list[list[tuple[Any, ...]]]:
        """Ask several things, each with one parameter, in one go."""
        with self.owner.pipeline():
            cursors = [
                self.owner.cursor(row_factory=tuple_row).execute(statement, [parameter])
                for statement, parameter in asked
            ]
            return [cursor.fetchall() for cursor in cursors]
