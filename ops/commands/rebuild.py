"""Recomputes evidence and states from the history, and compares them with the stored ones.

`compare_orders` and `compare_drivers` only read: they copy fixes and commands to temporary tables,
chunk by chunk, in read-only transactions. `repair_orders` and `repair_drivers` write the
differences.
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
ORDERS_PER_CHUNK = 100  # of about 1,000 fixes each: 100,000 rows, 10 MB
DRIVERS_PER_CHUNK = 100
STEPS = (
    *("rebuild_windows", "rebuild_fixes", "rebuild_sealed"),
    *("rebuild_at_restaurant", "rebuild_picked_up", "rebuild_arriving"),
)
# In order of dependency: each may depend on those before it.
PARTS = ("assignment", "evidence", "order", "driver", "position", "boot")

KEY_NAMES = ("order_id", "driver_id", "assignment_no", "state", "boot")  # in the order printed

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A stored row that differs from the recomputed one. None means no row."""

    part: str  # one of PARTS
    key: Values
    expected: Values | None
    actual: Values | None

    def fields(self) -> list[str]:
        """Return the names of the columns that differ."""
        expected, actual = self.expected or {}, self.actual or {}
        names = sorted({*expected, *actual})
        return [name for name in names if expected.get(name) != actual.get(name)]

    def line(self) -> str:
        """Describe the difference in a line."""
        key = " ".join(str(self.key[name]) for name in KEY_NAMES if name in self.key)
        expected, actual = self._describe(self.expected), self._describe(self.actual)
        return f"{self.part} {key}: expected {expected}, actual {actual}"

    def _describe(self, values: Values | None) -> str:
        if values is None:
            return "nothing"
        return ", ".join(f"{name} {values.get(name)}" for name in self.fields())


@dataclass(slots=True)
class Rebuilt:
    """What was recomputed, and the differences."""

    orders: int = 0
    assignments: int = 0
    sealed: int = 0  # assignments whose fixes may be deleted: their stored evidence is trusted
    fixes: int = 0  # read, of assignments
    drivers: int = 0
    differences: list[Difference] = field(default_factory=list)


class Rebuilder:
    """A database session as the owner."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        conn.autocommit = True
        self._run("set_timeouts")
        self._run("create_tables")

    def count(self) -> tuple[int, int]:
        """Count all orders and drivers."""
        [row] = self._rows("count_all")
        return row["orders"], row["drivers"]

    def order_ids(self) -> Iterator[list[UUID]]:
        """Yield the ids of all orders in chunks."""
        return self._chunks("next_orders", "order_id", ORDERS_PER_CHUNK)

    def driver_ids(self) -> Iterator[list[str]]:
        """Yield the ids of all drivers in chunks."""
        return self._chunks("next_drivers", "driver_id", DRIVERS_PER_CHUNK)

    def orders_of(self, driver_ids: Sequence[str]) -> list[UUID]:
        """Return all orders that were ever assigned to these drivers."""
        rows = self._rows("orders_of_drivers", driver_ids=list(driver_ids))
        return [row["order_id"] for row in rows]

    def unknown(self, order_ids: Sequence[UUID], driver_ids: Sequence[str]) -> list[str]:
        """Return the ids that do not exist."""
        orders = self._rows("existing_orders", order_ids=list(order_ids))
        drivers = self._rows("existing_drivers", driver_ids=list(driver_ids))
        known = {str(row["order_id"]) for row in orders} | {row["driver_id"] for row in drivers}
        return [str(one) for one in (*order_ids, *driver_ids) if str(one) not in known]

    # -- comparing -------------------------------------------------------------------------

    def compare_orders(self, order_ids: Sequence[UUID], rebuilt: Rebuilt) -> list[Difference]:
        """Recompute some orders and return the differences. Writes nothing."""
        with self._reading():
            found = self._compare_orders(order_ids)
            [row] = self._rows("count_rebuilt")
        rebuilt.orders += len(order_ids)
        rebuilt.assignments += row["assignments"]
        rebuilt.sealed += row["sealed"]
        rebuilt.fixes += row["fixes"]
        return found

    def compare_drivers(
        self, driver_ids: Sequence[str], unrepaired: Sequence[Difference], rebuilt: Rebuilt
    ) -> list[Difference]:
        """Recompute some drivers and return the differences. Writes nothing.

        `unrepaired` are differences of orders: a driver's state depends on the expected order.
        """
        with self._reading():
            found = self._compare_drivers(driver_ids, unrepaired)
        rebuilt.drivers += len(driver_ids)
        return found

    def _compare_orders(self, order_ids: Sequence[UUID]) -> list[Difference]:
        parameters = {"order_ids": list(order_ids)}
        self._run("clear_tables")
        for name in STEPS:
            self._rows(name, **(parameters if name == "rebuild_windows" else {}))
        return _differences(self._rows("compare_orders", **parameters))

    def _compare_drivers(
        self, driver_ids: Sequence[str], unrepaired: Sequence[Difference]
    ) -> list[Difference]:
        def expected(part: str) -> Jsonb:
            return Jsonb([one.key | (one.expected or {}) for one in unrepaired if one.part == part])

        return _differences(
            self._rows(
                "compare_drivers",
                driver_ids=list(driver_ids),
                orders=expected("order"),
                windows=expected("assignment"),
            )
        )

    # -- repairing -------------------------------------------------------------------------

    def repair_orders(self, order_ids: Sequence[UUID]) -> list[Difference]:
        """Compare again with the rows locked, write the expected rows, and return the differences.

        The guard trigger of the orders' state machine is disabled in this transaction only: a
        repair may not be a legal transition.
        """
        with translated(), self._conn.transaction():
            self._run(
                "disable_transition_guard"
            )  # first: its lock blocks all other writers of orders
            self._rows("lock_orders", order_ids=list(order_ids))
            found = self._compare_orders(order_ids)
            self._repair(found)
            self._run("enable_transition_guard")
        return found

    def repair_drivers(self, driver_ids: Sequence[str]) -> list[Difference]:
        """Compare again with the rows locked, write the expected rows, return the differences."""
        with translated(), self._conn.transaction():
            self._rows("lock_drivers", driver_ids=list(driver_ids))
            found = self._compare_drivers(driver_ids, [])
            self._repair(found)
        return found

    def _repair(self, differences: Sequence[Difference]) -> None:
        for one in sorted(differences, key=lambda one: PARTS.index(one.part)):
            parameters = {"key": Jsonb(one.key), "expected": Jsonb(one.expected)}
            if one.part == "evidence" and one.expected is None:
                self._rows("delete_evidence", key=parameters["key"])
                continue
            self._rows(f"repair_{one.part}", **parameters)
            if one.part == "position":
                self._rows("repair_cell", **parameters)

    # -- the session -----------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Run in one snapshot that can write temporary tables only."""
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

    def _rows(self, name: str, **parameters: object) -> list[Values]:
        with translated(), self._conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(query(name, FILE), parameters)
            return cursor.fetchall() if cursor.description else []


def _differences(rows: Sequence[Values]) -> list[Difference]:
    return [Difference(row["part"], row["key"], row["expected"], row["actual"]) for row in rows]
