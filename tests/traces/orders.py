"""Play the labelled orders on a database: each has a driver, who sends the trace."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from bench.recordings.labels import Label
from bench.recordings.places import place_of
from bench.recordings.traces import Trace, read_trace
from doorstep.store import admin
from doorstep.store.records import IncomingRow
from tests.factories import Place
from tests.sql.fleet import Fleet

BATCH_FIXES = 1999
BEFORE_S, AFTER_S = (
    600.0,
    3600.0,
)  # sent before and after the label's span


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    """A label's order in a database."""

    label: Label
    driver_id: str
    order_id: UUID
    begins_at: datetime  # second 0 of the trace, as moved


def rows_of(
    trace: Trace, driver_id: str, ends_at: datetime, boot: str | None = "b1"
) -> list[IncomingRow]:
    """Return the trace as incoming fixes, shifted so that the last one is received at `ends_at`.

    `received_at` is the time when the phone stored the fix, so every fix keeps its delay.
    """
    return [
        (
            0,
            driver_id,
            boot,
            seq if boot is not None else None,
            trace.moved(fix.fix_s, ends_at),
            trace.moved(fix.written_s, ends_at),
            *fix.place,
            fix.accuracy_m,
            fix.speed_mps,
            fix.heading_deg,
            fix.altitude_m,
            None,
            None,
        )
        for seq, fix in enumerate(trace.fixes, 1)
    ]


class LabelledRun:
    """All labelled traces, delivered to one database."""

    def __init__(self, fleet: Fleet, labels: Sequence[Label], ends_at: datetime) -> None:
        self.fleet = fleet
        self.orders: list[PlacedOrder] = []
        self.rows: list[IncomingRow] = []
        for number, label in enumerate(labels, 1):
            self._place(number, label, ends_at)
        self.rows.sort(key=lambda row: (row[5], row[1], row[3]))  # in order of arrival

    def _place(self, number: int, label: Label, ends_at: datetime) -> None:
        trace = read_trace(label.trace)
        driver_id = f"trace-{number}"
        restaurant = place_of(trace, label.restaurant)
        admin.register_restaurants(
            self.fleet.conn, [admin.NewRestaurant(1000 + number, label.name, *restaurant)]
        )
        self.fleet.add_drivers(driver_id)
        order_id = self.fleet.assigned_order(
            driver_id,
            restaurant_id=1000 + number,
            customer=Place(*place_of(trace, label.customer)),
        )
        begins_at = trace.moved(trace.begins_s, ends_at)
        assigned_at = begins_at + timedelta(seconds=label.assigned_s)
        self.fleet.backdate_assignment(order_id, assigned_at)
        self.orders.append(PlacedOrder(label, driver_id, order_id, begins_at))
        first_s, last_s = label.span_s
        earliest = begins_at + timedelta(seconds=first_s - BEFORE_S)
        latest = begins_at + timedelta(seconds=last_s + AFTER_S)
        self.rows += [
            row
            for row in rows_of(trace, driver_id, ends_at)
            if row[4] is not None and earliest <= row[4] <= latest
        ]

    def deliver(self, shuffled: random.Random | None = None) -> None:
        """Record all fixes in batches: in order of arrival, or shuffled."""
        rows = list(self.rows)
        if shuffled:
            shuffled.shuffle(rows)
        for start in range(0, len(rows), BATCH_FIXES):
            batch = rows[start : start + BATCH_FIXES]
            self.fleet.record((n, *row[1:]) for n, row in enumerate(batch))

    def found(self, order: PlacedOrder) -> dict[str, float]:
        """Return an order's evidence, in seconds since the start of its trace."""
        return {
            state: (at - order.begins_at).total_seconds()
            for (_, state), at in self.fleet.evidence(order.order_id).items()
        }

    def final_state(self) -> dict[str, Any]:
        """Return all that must not depend on the order of arrival."""
        return {
            "evidence": [sorted(self.fleet.evidence(o.order_id).items()) for o in self.orders],
            "states": [self.fleet.state(order.order_id) for order in self.orders],
            "drivers": [self._driver(order.driver_id) for order in self.orders],
            "history": self.fleet.history(
                "driver_id, boot, seq, fix_at, received_at, lon_deg, lat_deg, accuracy_m,"
                " speed_mps, heading_deg, altitude_m, quarantine"
            ),
        }

    def _driver(self, driver_id: str) -> dict[str, Any]:
        row = self.fleet.driver(driver_id)
        return {name: row[name] for name in ("state", "fix_at", "received_at", "boot", "seq")}

    def gps_events(self, order: PlacedOrder) -> list[str]:
        """Return the states that GPS caused, in order."""
        return [
            state for _, _, state, source in self.fleet.events(order.order_id) if source == "gps"
        ]


def now_ms() -> datetime:
    """Return now in whole milliseconds, like every fix."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
