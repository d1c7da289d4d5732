"""The invariants, after each fault, from the devices' own journals and the load's own record.

- Every commit-acked fix is in the database, and so is, once the devices have nothing left to send,
  every fix they ever published. No row stands twice.
- Every location whose PATCH was answered 200 is there.
- Each finished order's evidence equals the reference model's (tests/property/model.py), worked out
  from the fixes that the couriers wrote down and the windows of its assignments, to the instant:
  one arrival at the restaurant, one at the door, none for who only passed. It is delivered.
- No order has gone back within an assignment.
- No customer saw a position outside the order's window, or an order that rewound; no 5xx but 503.

That no hand was needed shows in the lab: after a fault is over nothing waits but us.
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
from tests.faults.crew import PATCHED, PROBE, Published
from tests.faults.lab import Lab
from tests.faults.scripted import SPEEDUP
from tests.property.model import RANK, Assignment, Fix, Order, Place, Policy, World

SETTLE_S = 120.0
POLL_S = 0.3
MAX_NAMED = 10
POLICY = Policy(
    dwell_min_s=30 / SPEEDUP, dwell_max_s=120 / SPEEDUP,
    leave_min_s=30 / SPEEDUP, leave_max_s=120 / SPEEDUP, arriving_min_s=8 / SPEEDUP,
)  # fmt: skip
EVERYWHERE = (-180.0, -90.0, 180.0, 90.0)
BEFORE = datetime(2020, 1, 1, tzinfo=UTC)  # orders' creation decides nothing here
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
    SELECT order_id, assignment_no, driver_id, assigned_at, ended_at, picked_up_at
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
    SELECT order_id, order_seq, assignment_no, state::text FROM order_event
    WHERE order_id = ANY (%s) ORDER BY order_id, order_seq
"""

Facts = dict[tuple[int, str], datetime]
"""When each (assignment_no, state) is proved to have begun."""


@dataclass(slots=True)
class Verdict:
    """What the invariants say. `commit_acked` counts the fixes since the fault began."""

    commit_acked: int = 0
    lost: int = 0
    duplicates: int = 0
    orders: int = 0  # finished ones that were compared with the model
    complaints: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every invariant holds."""
        return not (self.lost or self.duplicates or self.complaints)


class Checker:
    """Checks one lab; it remembers what the model said of finished orders."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._expected: dict[UUID, Facts] = {}
        self._blamed = 0  # violations that an earlier fault was blamed for

    def check(self, since: Published) -> Verdict:
        """Let the devices fall silent, compare everything, and let them go on."""
        verdict = Verdict()
        self.lab.load.pause()
        try:
            left = self._settle()
            if left:
                verdict.complaints.append(
                    f"{left} fixes are not acknowledged after {SETTLE_S:.0f} s"
                )
            with self._database() as conn:
                self._check_fixes(conn, since, verdict)
                self._check_patched(conn, verdict)
                self._check_orders(conn, verdict)
        finally:
            self.lab.load.go_on()
        found = [one["what"] for one in self.lab.load.records() if one["kind"] == "violation"]
        verdict.complaints += [*dict.fromkeys(found[self._blamed :])][:MAX_NAMED]
        self._blamed = len(found)
        return verdict

    def _settle(self) -> int:
        """Wait until every journal is empty; return how many fixes are left."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            left = sum(one.pending for one in self.lab.load.lives())
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(POLL_S)

    @contextlib.contextmanager
    def _database(self) -> Iterator[psycopg.Connection[Any]]:
        """Connect for long statements, and patiently: a busy machine may not answer in 5 s."""
        url, deadline = self.lab.stack.database_admin_url, time.monotonic() + SETTLE_S
        while True:
            try:
                conn = connect(url, statement_timeout_ms=120_000)
                break
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
        with conn:
            conn.autocommit = True  # or the server would end a transaction that waits for us
            yield conn

    # -- fixes --------------------------------------------------------------------------------

    def _check_fixes(
        self, conn: psycopg.Connection[Any], since: Published, verdict: Verdict
    ) -> None:
        lives = self.lab.load.lives()
        ledger: Ledger = compare(conn, lives)
        verdict.commit_acked = sum(
            one.last_seq - since.get((one.driver_id, one.boot), 0) - one.pending for one in lives
        )
        verdict.lost = ledger.lost
        verdict.duplicates = int(_one(conn, DUPLICATES, (PROBE + "%",)))
        verdict.complaints += ledger.complaints()[:MAX_NAMED]
        if ledger.rejected:
            verdict.complaints.append(f"{ledger.rejected} good fixes were rejected")
        voids = sum(one.voids for one in lives)
        if voids:
            verdict.complaints.append(f"{voids} fixes were given up by their devices")

    def _check_patched(self, conn: psycopg.Connection[Any], verdict: Verdict) -> None:
        told = [
            (one["driver_id"], _instant(one["fix_at"]), one["lon_deg"], one["lat_deg"])
            for one in self.lab.load.records()
            if one["kind"] == "patched"
        ]
        there = Counter(conn.execute(PATCHED_FIXES, (PATCHED + "%",)).fetchall())
        missing = [one for one in told if not there[one]]
        verdict.lost += len(missing)
        verdict.duplicates += sum(times - 1 for times in there.values())
        if missing:
            verdict.complaints.append(f"{len(missing)} fixes whose PATCH was answered 200 are lost")

    # -- orders -------------------------------------------------------------------------------

    def _check_orders(self, conn: psycopg.Connection[Any], verdict: Verdict) -> None:
        records = self.lab.load.records()
        placed = {UUID(one["order_id"]): one for one in records if one["kind"] == "order"}
        done = {UUID(one["order_id"]): one["assignment_no"] for one in records
                if one["kind"] == "done"}  # fmt: skip
        complaints = [*_going_back(conn, list(placed))]
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
                complaints.append(f"order {order_id}: its script went wrong: {sorted(expected)}")
            if seen != expected:
                complaints.append(
                    f"order {order_id}: proved {_texts(seen)}, not {_texts(expected)}"
                )
            if states.get(order_id) != ("delivered", number):
                complaints.append(f"order {order_id}: is {states.get(order_id)}, not delivered")
        verdict.orders = len(done)
        verdict.complaints += complaints[:MAX_NAMED]

    def _expect(self, conn: psycopg.Connection[Any], placed: dict[UUID, dict[str, Any]]) -> None:
        """Ask the model what the couriers' fixes prove of orders that have just ended."""
        ids = list(placed)
        pick_ups = {row[:2]: row[2] for row in conn.execute(PICK_UPS, (ids,))}
        held = conn.execute(ASSIGNMENTS, (ids,)).fetchall()
        fixes = self._fixes_of({row[2] for row in held}) if held else {}
        for order_id, one in placed.items():
            order = Order(
                Place(*one["restaurant"]), Place(*one["customer"]), POLICY, created_at=BEFORE
            )
            facts: Facts = {}
            for _id, number, driver_id, assigned_at, ended_at, _at in held:
                if _id == order_id:
                    window = Assignment(
                        driver_id,
                        assigned_at,
                        ended_at,
                        picked_up_at=pick_ups.get((order_id, number)),
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
        for one in self.lab.load.records():
            if one["kind"] == "fix" and one["driver_id"] in driver_ids:
                at = _instant(one["fix_at"])
                place = Place(one["lon_deg"], one["lat_deg"])
                fix = Fix(one["driver_id"], one["boot"], one["seq"], at, at, place)
                found[fix.driver_id].append(fix)
        return found


def _going_back(conn: psycopg.Connection[Any], order_ids: list[UUID]) -> Iterator[str]:
    """Name the orders whose events do not only go forward, or leave a number out."""
    before: dict[UUID, tuple[int, int, int]] = {}
    for order_id, seq, number, state in conn.execute(EVENTS, (order_ids,)):
        last_seq, last_number, last_rank = before.get(order_id, (0, 0, -1))
        rank = RANK[state]
        if seq != last_seq + 1 or (number, rank) <= (last_number, last_rank):
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
