"""All that the promise is about, read from the database and from the model in one shape.

Left out are `recorded_at` and the other instants at which something was written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from doorstep.store import write
from tests.property.fleet import Fleet
from tests.property.model import Fix, World, cell_of

Snapshot = dict[str, Any]

HISTORY = """
    SELECT driver_id, boot, seq, fix_at, received_at, lon_deg, lat_deg, accuracy_m, battery,
        quarantine
    FROM fix_history WHERE driver_id = ANY (%s)
"""
BOOTS = """
    SELECT driver_id, boot,
        ARRAY(SELECT lower(r) FROM unnest(stored) r), ARRAY(SELECT upper(r) FROM unnest(stored) r),
        ARRAY(SELECT lower(r) FROM unnest(rejected) r),
        ARRAY(SELECT upper(r) FROM unnest(rejected) r)
    FROM driver_boot WHERE driver_id = ANY (%s)
"""
DRIVERS = """
    SELECT driver_id, duty::text, state::text, order_id, fix_at, received_at, boot, seq,
        d.lon_deg, d.lat_deg, accuracy_m, battery, ST_X(geom), ST_Y(geom), d.cell, c.cell
    FROM driver_state d LEFT JOIN driver_cell c USING (driver_id) WHERE driver_id = ANY (%s)
"""
ORDERS = """
    SELECT order_id, state::text, assignment_no, order_seq, ended_at IS NOT NULL
    FROM orders WHERE order_id = ANY (%s)
"""
ASSIGNMENTS = """
    SELECT order_id, assignment_no, driver_id, assigned_at, ended_at
    FROM assignment WHERE order_id = ANY (%s)
"""
EVIDENCE = """
    SELECT order_id, assignment_no, state::text, occurred_at
    FROM evidence WHERE order_id = ANY (%s)
"""
# An event keeps the instant that was known when it was shown, maybe amid the copies of one batch;
# what it ends at is compared as evidence.
EVENTS = """
    SELECT order_id, assignment_no, state::text, source::text, driver_id,
        CASE WHEN source <> 'gps' THEN occurred_at END
    FROM order_event WHERE order_id = ANY (%s) ORDER BY order_id, order_seq
"""

OUTBOX = """
    DELETE FROM outbox WHERE convert_from(key, 'UTF8') = ANY (%s)
    RETURNING outbox_id, topic, convert_from(key, 'UTF8'), convert_from(payload, 'UTF8')::jsonb,
        headers #>> '{0,1}'
"""


def announced(
    fleet: Fleet, drivers: Sequence[str], orders: Sequence[UUID]
) -> tuple[list[tuple[Any, ...]], list[tuple[str, str]]]:
    """Take from the outbox what goes out: the orders' updates, and (driver, reason) of the dead
    letters of parked fixes.
    """
    rows = sorted(fleet.rows(OUTBOX, [*drivers, *map(str, orders)]))
    updates = [
        (UUID(key), p["order_seq"], p["assignment_no"], p["state"], p["source"], p["driver_id"])
        for _id, topic, key, p, _reason in rows
        if topic == "tracking-updates"
    ]
    return updates, sorted((row[2], row[4]) for row in rows if row[1] == "dead-letter")


def to_announce(world: World) -> list[tuple[Any, ...]]:
    return [
        (order_id, seq, e.assignment_no, e.state, e.source, e.driver_id)
        for order_id, order in world.orders.items()
        for seq, e in enumerate(order.events, 1)
    ]


def of_database(fleet: Fleet, drivers: Sequence[str], orders: Sequence[UUID]) -> Snapshot:
    """Read what stands in the database."""
    ledger = {
        (driver_id, boot): (numbers(*stored), numbers(*rejected))
        for driver_id, boot, *ranges in fleet.rows(BOOTS, list(drivers))
        for stored, rejected in [(ranges[:2], ranges[2:])]
    }
    marks = write.read_watermarks(fleet.batch_door, list(ledger))
    events: dict[UUID, list[tuple[Any, ...]]] = {order_id: [] for order_id in orders}
    for order_id, *event in fleet.rows(EVENTS, list(orders)):
        events[order_id].append(tuple(event))
    return {
        "history": sorted(fleet.rows(HISTORY, list(drivers)), key=repr),
        "ledger": ledger,
        "watermarks": {(m.driver_id, m.boot): (m.seq, m.missing) for m in marks},
        "drivers": {row[0]: row[1:] for row in fleet.rows(DRIVERS, list(drivers))},
        "orders": {row[0]: row[1:] for row in fleet.rows(ORDERS, list(orders))},
        "assignments": {row[:2]: row[2:] for row in fleet.rows(ASSIGNMENTS, list(orders))},
        "evidence": {row[:3]: row[3] for row in fleet.rows(EVIDENCE, list(orders))},
        "events": events,
    }


def numbers(lowers: list[int], uppers: list[int]) -> set[int]:
    return {n for a, b in zip(lowers, uppers, strict=True) for n in range(a, b)}


def of_model(world: World) -> Snapshot:
    """Work out what must stand."""
    boots = {key: boot for key, boot in world.boots.items() if boot.stored or boot.rejected}
    orders = world.orders.items()
    assignments = [
        (order_id, number, order, held)
        for order_id, order in orders
        for number, held in order.assignments.items()
    ]
    return {
        "history": sorted(
            (
                (*_identity(fix), fix.fix_at, fix.received_at, *_seen(fix), world.quarantine(fix))
                for fixes in world.fixes.values()
                for fix in fixes
            ),
            key=repr,
        ),
        "ledger": {key: (boot.stored, boot.rejected) for key, boot in boots.items()},
        "watermarks": {key: boot.watermark() for key, boot in boots.items()},
        "drivers": {
            driver_id: (duty, *world.driver_state(driver_id), *_newest(world.newest(driver_id)))
            for driver_id, duty in world.duty.items()
        },
        "orders": {
            order_id: (order.state, order.assignment_no, len(order.events), order.is_over)
            for order_id, order in orders
        },
        "assignments": {
            (order_id, number): (held.driver_id, held.assigned_at, held.ended_at)
            for order_id, number, _order, held in assignments
        },
        "evidence": {
            (order_id, number, state): at
            for order_id, number, order, held in assignments
            for state, at in world.proved(order, held).items()
        },
        "events": {
            order_id: [
                (
                    e.assignment_no,
                    e.state,
                    e.source,
                    e.driver_id,
                    None if e.source == "gps" else e.occurred_at,
                )
                for e in order.events
            ]
            for order_id, order in orders
        },
    }


def _identity(fix: Fix) -> tuple[Any, ...]:
    return (fix.driver_id, *fix.age[1:])


def _seen(fix: Fix) -> tuple[Any, ...]:
    assert fix.place is not None
    return (fix.place.lon_deg, fix.place.lat_deg, fix.accuracy_m, fix.battery)


def _newest(fix: Fix | None) -> tuple[Any, ...]:
    if fix is None:
        return (None,) * 12
    assert fix.place is not None
    place, cell = (fix.place.lon_deg, fix.place.lat_deg), cell_of(fix.place)
    return (fix.fix_at, fix.received_at, *fix.age[1:], *_seen(fix), *place, cell, cell)


def differences(seen: Snapshot, expected: Snapshot) -> list[str]:
    """Name what differs, part by part; empty if all is well."""
    return [
        f"{part}:\n  database: {seen[part]!r}\n  model:    {expected[part]!r}"
        for part in expected
        if seen[part] != expected[part]
    ]
