"""The invariants after each fault, checked from the devices' journals and the load's records.

- Every acknowledged fix is in the database. Once the devices have nothing left to send, so is every
  published fix. No fix is stored twice.
- Every location whose PATCH was answered with 200 is in the database.
- The evidence of each finished order equals the reference model's, to the instant, from the
  couriers' recorded fixes and the windows of the assignments: one arrival at the restaurant, one at
  the customer, none for a driver who only passed. The order is delivered.
- No order goes back to an earlier state within an assignment.
- No customer saw a position outside the order's window, or an older `order_seq`. No 5xx but 503.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from doorstep.errors import DoorstepError, Unavailable
from doorstep.store.pool import connect
from ops.ledger import Ledger, compare
from tests.faults.environment import FaultEnvironment
from tests.faults.load_process import PATCHED, PROBE, Published
from tests.faults.scripted_orders import SPEEDUP
from tests.property.model import World
from tests.property.records import RANK, Assignment, Fix, Order, Place, Policy

SETTLE_S = 120.0
POLL_S = 0.3
MAX_NAMED = 10
POLICY = Policy(
    dwell_min_s=30 / SPEEDUP, dwell_max_s=120 / SPEEDUP,
    leave_min_s=30 / SPEEDUP, leave_max_s=120 / SPEEDUP, arriving_min_s=8 / SPEEDUP,
)  # fmt: skip
EVERYWHERE = (-180.0, -90.0, 180.0, 90.0)
BEFORE = datetime(2020, 1, 1, tzinfo=UTC)  # an order's creation time does not matter here
FULFILLED = {"at_restaurant", "picked_up", "arriving", "at_customer"}

DUPLICATES = """
    SELECT coalesce(sum(n - 1), 0) FROM (
        SELECT count(*) AS n FROM fix_history WHERE driver_id LIKE %s
        GROUP BY driver_id, boot, seq HAVING count(*) > 1
    ) AS twice
"""
PATCHED_FIXES = (
    "SELECT driver_id, fix_at, lon_deg, lat_deg FROM fix_history WHERE driver_id LIKE %s"
)
ASSIGNMENTS = """
    SELECT order_id, assignment_no, driver_id, assigned_at, ended_at, visible
    FROM assignment WHERE order_id = ANY (%s) ORDER BY order_id, assignment_no
"""
PICK_UPS = """
    SELECT order_id, assignment_no, min(commanded_at) FROM order_command
    WHERE order_id = ANY (%s) AND command = 'pick_up' GROUP BY order_id, assignment_no
"""
EVIDENCE = """
    SELECT order_id, assignment_no, state::text, occurred_at FROM evidence
    WHERE order_id = ANY (%s)
"""
STATES = "SELECT order_id, state::text, assignment_no FROM orders WHERE order_id = ANY (%s)"
EVENTS = """
    SELECT order_id, order_seq, assignment_no, state::text, false AS is_notice FROM order_event
    WHERE order_id = ANY (%(ids)s)
    UNION ALL SELECT order_id, order_seq, assignment_no, state::text, true FROM order_notice
    WHERE order_id = ANY (%(ids)s) ORDER BY order_id, order_seq
"""

Facts = dict[tuple[int, str], datetime]
"""When each (assignment_no, state) is proved to have begun."""


@dataclass(slots=True)
class CheckResult:
    """The result of one check. `commit_acked` counts the fixes since the fault began."""

    commit_acked: int = 0
    lost: int = 0
    duplicates: int = 0
    orders: int = 0  # finished and compared with the model
    violations: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Say whether every invariant holds."""
        return not (self.lost or self.duplicates or self.violations)


class Checker:
    """Checks one environment. Remembers the model's facts of finished orders."""

    def __init__(self, env: FaultEnvironment) -> None:
        self.env = env
        self._expected: dict[UUID, Facts] = {}
        self._reported = 0  # number of recorded violations already reported

    def check(self, since: Published) -> CheckResult:
        """Pause the load, wait until all is acknowledged, compare everything, and resume."""
        result = CheckResult()
        self.env.load.pause()
        try:
            left = self._settle()
            if left:
                result.violations.append(
                    f"{left} fixes are not acknowledged after {SETTLE_S:.0f} s"
                )
            with self._database() as conn:
                self._check_fixes(conn, since, result)
                self._check_patched(conn, result)
                self._check_orders(conn, result)
        finally:
            self.env.load.resume()
        found = [one["what"] for one in self.env.load.records() if one["kind"] == "violation"]
        result.violations += [*dict.fromkeys(found[self._reported :])][:MAX_NAMED]
        self._reported = len(found)
        return result

    def _settle(self) -> int:
        """Wait until every journal is empty; return the number of pending fixes."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            left = sum(one.pending for one in self.env.load.boots())
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(POLL_S)

    @contextlib.contextmanager
    def _database(self) -> Iterator[psycopg.Connection[Any]]:
        """Connect with a long statement time-out. Retries: a busy machine may not answer in 5 s."""
        url, deadline = self.env.stack.database_admin_url, time.monotonic() + SETTLE_S
        while True:
            try:
                conn = connect(url, statement_timeout_ms=120_000)
                break
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
        with conn:
            conn.autocommit = True  # the server ends idle transactions
            yield conn

    # -- fixes --------------------------------------------------------------------------------

    def _check_fixes(
        self, conn: psycopg.Connection[Any], since: Published, result: CheckResult
    ) -> None:
        boots = self.env.load.boots()
        ledger: Ledger = compare(conn, boots)
        result.commit_acked = sum(
            one.last_seq - since.get((one.driver_id, one.boot), 0) - one.pending for one in boots
        )
        result.lost = ledger.lost
        result.duplicates = int(_one(conn, DUPLICATES, (PROBE + "%",)))
        result.violations += ledger.complaints()[:MAX_NAMED]
        if ledger.rejected:
            result.violations.append(f"{ledger.rejected} good fixes were rejected")
        voids = sum(one.voids for one in boots)
        if voids:
            result.violations.append(f"{voids} fixes were voided by their devices")

    def _check_patched(self, conn: psycopg.Connection[Any], result: CheckResult) -> None:
        acked = [
            (one["driver_id"], _instant(one["fix_at"]), one["lon_deg"], one["lat_deg"])
            for one in self.env.load.records()
            if one["kind"] == "patched"
        ]
        there = Counter(conn.execute(PATCHED_FIXES, (PATCHED + "%",)).fetchall())
        missing = [one for one in acked if not there[one]]
        result.lost += len(missing)
        result.duplicates += sum(times - 1 for times in there.values())
        if missing:
            result.violations.append(f"{len(missing)} fixes whose PATCH was answered 200 are lost")

    # -- orders -------------------------------------------------------------------------------

    def _check_orders(self, conn: psycopg.Connection[Any], result: CheckResult) -> None:
        records = self.env.load.records()
        placed = {UUID(one["order_id"]): one for one in records if one["kind"] == "order"}
        done = {UUID(one["order_id"]): one["assignment_no"] for one in records
                if one["kind"] == "done"}  # fmt: skip
        violations = [*_regressions(conn, list(placed))]
        self._expect(conn, {one: placed[one] for one in done if one not in self._expected})
        proved: dict[UUID, Facts] = defaultdict(dict)
        for order_id, number, state, occurred_at in conn.execute(EVIDENCE, (list(done),)):
            proved[order_id][number, state] = occurred_at
        states = {row[0]: row[1:] for row in conn.execute(STATES, (list(done),))}
        for order_id, number in done.items():
            expected, seen = self._expected[order_id], proved[order_id]
            if {state for no, state in expected if no == number} != FULFILLED or any(
                no != number for no, _state in expected
            ):
                violations.append(f"order {order_id}: its script failed: {sorted(expected)}")
            if seen != expected:
                violations.append(
                    f"order {order_id}: proved {_texts(seen)}, not {_texts(expected)}"
                )
            if states.get(order_id) != ("delivered", number):
                violations.append(f"order {order_id}: is {states.get(order_id)}, not delivered")
        result.orders = len(done)
        result.violations += violations[:MAX_NAMED]

    def _expect(self, conn: psycopg.Connection[Any], placed: dict[UUID, dict[str, Any]]) -> None:
        """Let the model derive the facts of orders that have just ended."""
        ids = list(placed)
        pick_ups = {row[:2]: row[2] for row in conn.execute(PICK_UPS, (ids,))}
        held = conn.execute(ASSIGNMENTS, (ids,)).fetchall()
        fixes = self._fixes_of({row[2] for row in held}) if held else {}
        for order_id, one in placed.items():
            order = Order(
                Place(*one["restaurant"]), Place(*one["customer"]), POLICY, created_at=BEFORE
            )
            facts: Facts = {}
            for _id, number, driver_id, assigned_at, ended_at, visible in held:
                if _id == order_id:
                    window = Assignment(
                        driver_id,
                        assigned_at,
                        ended_at,
                        picked_up_at=pick_ups.get((order_id, number)),
                        visible=[(one.lower, one.upper) for one in visible],
                    )
                    inside = {
                        fix
                        for fix in fixes[driver_id]
                        if assigned_at <= fix.at() and (ended_at is None or fix.at() < ended_at)
                    }
                    world = World((EVERYWHERE,), fixes={driver_id: inside})
                    facts |= {(number, s): at for s, at in world.proved(order, window).items()}
            self._expected[order_id] = facts

    def _fixes_of(self, driver_ids: set[str]) -> dict[str, list[Fix]]:
        found: dict[str, list[Fix]] = {one: [] for one in driver_ids}
        for one in self.env.load.records():
            if one["kind"] == "fix" and one["driver_id"] in driver_ids:
                at = _instant(one["fix_at"])
                place = Place(one["lon_deg"], one["lat_deg"])
                fix = Fix(one["driver_id"], one["boot"], one["seq"], at, at, place)
                found[fix.driver_id].append(fix)
        return found


def _regressions(conn: psycopg.Connection[Any], order_ids: list[UUID]) -> Iterator[str]:
    """Yield the orders whose events go back, or skip an `order_seq`."""
    before: dict[UUID, tuple[int, int, int]] = {}
    for order_id, seq, number, state, is_notice in conn.execute(EVENTS, {"ids": order_ids}):
        last_seq, last_number, last_rank = before.get(order_id, (0, 0, -1))
        rank = RANK[state]
        has_moved = (number, rank) > (last_number, last_rank)
        if seq != last_seq + 1 or has_moved == is_notice:  # a notice leaves the state as it was
            yield f"order {order_id} went back at its event {seq}"
        before[order_id] = (seq, number, rank)


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _texts(facts: Facts) -> list[str]:
    return [f"{no} {state} {at.isoformat()}" for (no, state), at in sorted(facts.items())]


def _one(conn: psycopg.Connection[Any], statement: str, values: tuple[object, ...]) -> Any:
    row = conn.execute(statement, values).fetchone()
    if row is None:
        raise DoorstepError("no row")
    return row[0]
