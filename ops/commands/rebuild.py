"""Working evidence and states out again, and comparing them with what stands.

`compare_orders` and `compare_drivers` only read: fixes and commands go into the session's temporary
tables, chunk by chunk, in read-only transactions. `mend` writes what they found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from doorstep.store.error_mapping import translated
from sql import query

FILE = "rebuild.sql"
ORDERS_AT_ONCE = 100  # of about 1,000 fixes each: 100,000 rows, 10 MB
DRIVERS_AT_ONCE = 100
STEPS = (
    *("rebuild_windows", "rebuild_fixes", "rebuild_sealed"),
    *("rebuild_at_restaurant", "rebuild_picked_up", "rebuild_arriving"),
)
# The order in which parts rest on each other.
PARTS = ("assignment", "evidence", "order", "driver", "position", "boot")

NAMES = ("order_id", "driver_id", "assignment_no", "state", "boot")  # of keys, as they are said

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not what the record says. None: there is no such row, or should be none."""

    part: str  # one of PARTS
    key: Values
    expected: Values | None
    stands: Values | None

    def fields(self) -> list[str]:
        """The names of what differs."""
        expected, stands = self.expected or {}, self.stands or {}
        names = sorted({*expected, *stands})
        return [name for name in names if expected.get(name) != stands.get(name)]

    def line(self) -> str:
        """Say it in a line."""
        who = " ".join(str(self.key[name]) for name in NAMES if name in self.key)
        expected, stands = _said(self, self.expected), _said(self, self.stands)
        return f"{self.part} {who}: expected {expected}, stands {stands}"


def _said(difference: Difference, values: Values | None) -> str:
    if values is None:
        return "nothing"
    return ", ".join(f"{name} {values.get(name)}" for name in difference.fields())


@dataclass(slots=True)
class Rebuilt:
    """How much was worked out again, and what differs."""

    orders: int = 0
    assignments: int = 0
    sealed: int = 0  # assignments whose fixes may be gone: their evidence was taken as it stands
    fixes: int = 0  # looked at, of assignments
    drivers: int = 0
    differences: list[Difference] = field(default_factory=list)


class Rebuilder:
    """One session with the database, as its owner."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        conn.autocommit = True
        self._run("set_timeouts")
        self._run("create_tables")

    def count(self) -> tuple[int, int]:
        """How many orders and drivers there are."""
        [row] = self._rows("count_all")
        return row["orders"], row["drivers"]

    def order_ids(self) -> Iterator[list[UUID]]:
        """Give the ids of all orders, chunk by chunk."""
        return self._chunks("next_orders", "order_id", ORDERS_AT_ONCE)

    def driver_ids(self) -> Iterator[list[str]]:
        """Give the ids of all drivers, chunk by chunk."""
        return self._chunks("next_drivers", "driver_id", DRIVERS_AT_ONCE)

    def orders_of(self, driver_ids: Sequence[str]) -> list[UUID]:
        """Give the orders that any of these drivers has or had."""
        rows = self._rows("orders_of_drivers", driver_ids=list(driver_ids))
        return [row["order_id"] for row in rows]

    def unknown(self, order_ids: Sequence[UUID], driver_ids: Sequence[str]) -> list[str]:
        """Give those ids that are nobody's."""
        orders = self._rows("existing_orders", order_ids=list(order_ids))
        drivers = self._rows("existing_drivers", driver_ids=list(driver_ids))
        known = {str(row["order_id"]) for row in orders} | {row["driver_id"] for row in drivers}
        return [str(one) for one in (*order_ids, *driver_ids) if str(one) not in known]

    # -- comparing -------------------------------------------------------------------------

    def compare_orders(self, order_ids: Sequence[UUID], rebuilt: Rebuilt) -> list[Difference]:
        """Work some orders out again and return what differs. Writes nothing."""
        with self._reading():
            found = self._compare_orders(order_ids)
            [row] = self._rows("count_rebuilt")
        rebuilt.orders += len(order_ids)
        rebuilt.assignments += row["assignments"]
        rebuilt.sealed += row["sealed"]
        rebuilt.fixes += row["fixes"]
        return found

    def compare_drivers(
        self, driver_ids: Sequence[str], otherwise: Sequence[Difference], rebuilt: Rebuilt
    ) -> list[Difference]:
        """Work some drivers out again and return what differs. Writes nothing.

        `otherwise`: what differs of orders and is not mended, since drivers rest on orders.
        """
        with self._reading():
            found = self._compare_drivers(driver_ids, otherwise)
        rebuilt.drivers += len(driver_ids)
        return found

    def _compare_orders(self, order_ids: Sequence[UUID]) -> list[Difference]:
        asked = {"order_ids": list(order_ids)}
        self._run("clear_tables")
        for name in STEPS:
            self._rows(name, **(asked if name == "rebuild_windows" else {}))
        return _differences(self._rows("compare_orders", **asked))

    def _compare_drivers(
        self, driver_ids: Sequence[str], otherwise: Sequence[Difference]
    ) -> list[Difference]:
        def expected(part: str) -> Jsonb:
            return Jsonb([one.key | (one.expected or {}) for one in otherwise if one.part == part])

        return _differences(
            self._rows(
                "compare_drivers",
                driver_ids=list(driver_ids),
                orders=expected("order"),
                windows=expected("assignment"),
            )
        )

    # -- mending ---------------------------------------------------------------------------

    def mend_orders(self, order_ids: Sequence[UUID]) -> list[Difference]:
        """Compare again with the rows locked, and write what the record says. Returns what was
        mended.

        The guard of the orders' state machine is off in this transaction and for no other: what
        is mended may have been moved past it.
        """
        with translated(), self._conn.transaction():
            self._run(
                "disable_transition_guard"
            )  # first: its lock keeps every other writer of orders out
            self._rows("lock_orders", order_ids=list(order_ids))
            found = self._compare_orders(order_ids)
            self._mend(found)
            self._run("enable_transition_guard")
        return found

    def mend_drivers(self, driver_ids: Sequence[str]) -> list[Difference]:
        """Compare again with the rows locked, and write what the record says."""
        with translated(), self._conn.transaction():
            self._rows("lock_drivers", driver_ids=list(driver_ids))
            found = self._compare_drivers(driver_ids, [])
            self._mend(found)
        return found

    def _mend(self, differences: Sequence[Difference]) -> None:
        for one in sorted(differences, key=lambda one: PARTS.index(one.part)):
            asked = {"key": Jsonb(one.key), "expected": Jsonb(one.expected)}
            if one.part == "evidence" and one.expected is None:
                self._rows("delete_evidence", key=asked["key"])
                continue
            self._rows(f"repair_{one.part}", **asked)
            if one.part == "position":
                self._rows("repair_cell", **asked)

    # -- the session -----------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One snapshot, in which only temporary tables can be written."""
        with translated(), self._conn.transaction():
            self._run("set_read_only")
            yield

    def _chunks(self, name: str, column: str, limit: int) -> Iterator[list[Any]]:
        after = None
        while rows := self._rows(name, after=after, limit=limit):
            ids = [row[column] for row in rows]
            yield ids
            after = ids[-1]

    def _run(self, name: str) -> None:
        with translated():
            self._conn.execute(query(name, FILE))

    def _rows(self, name: str, **asked: object) -> list[Values]:
        with translated(), self._conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(query(name, FILE), asked)
            return cursor.fetchall() if cursor.description else []


def _differences(rows: Sequence[Values]) -> list[Difference]:
    return [Difference(row["part"], row["key"], row["expected"], row["actual"]) for row in rows]
