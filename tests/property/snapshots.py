"""All that the promise is about, read from the database and from the model in one shape.

Every column of every table is compared, or stands below with the reason why not;
test_snapshots.py holds the two lists to the schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from doorstep.store import fix_writer
from tests.property.fleet import Fleet
from tests.property.model import World
from tests.property.records import Fix, Order, cell_of
from tests.property.visibility import leads_of

Snapshot = dict[str, Any]
MEASURED = (
    *("lon_deg", "lat_deg", "accuracy_m", "speed_mps", "heading_deg", "altitude_m", "battery"),
)

# table -> (columns that find a case's rows, columns compared)
COMPARED = {
    "fix_history": (
        "driver_id",
        "driver_id boot seq fix_at received_at lon_deg lat_deg accuracy_m speed_mps heading_deg"
        " altitude_m battery quarantine",
    ),
    "driver_boot": ("driver_id", "driver_id boot stored rejected"),
    "driver_state": (
        "driver_id",
        "driver_id duty state order_id fix_at received_at boot seq lon_deg lat_deg accuracy_m"
        " speed_mps heading_deg altitude_m battery geom cell",
    ),
    "driver_cell": ("driver_id", "driver_id cell"),
    "driver_command": (
        "driver_id",
        "driver_id command actor from_state to_state idempotency_key commanded_at",
    ),
    "orders": (
        "order_id",
        "order_id restaurant_id lon_deg lat_deg policy_id created_at state assignment_no"
        " state_source state_at order_seq ended_at",
    ),
    "assignment": (
        "order_id",
        "order_id assignment_no driver_id assigned_at ended_at ended_by policy_id"
        " restaurant_lon_deg restaurant_lat_deg customer_lon_deg customer_lat_deg"
        " at_restaurant_at left_restaurant_at picked_up_at arriving_at at_customer_at visible"
        " stop_no",
    ),
    "driver_clock": ("driver_id", "driver_id boot hour lead"),
    "order_command": (
        "order_id",
        "order_id command actor actor_id driver_id from_state to_state assignment_no"
        " idempotency_key commanded_at",
    ),
    "evidence": ("order_id", "order_id assignment_no state source occurred_at"),
    "order_event": (
        "order_id",
        "order_id order_seq assignment_no state source driver_id occurred_at",
    ),
    "parked_fix": ("driver_id", "driver_id boot seq"),  # none is left at the end of a case
    "outbox": ("key", "topic key payload headers"),  # `announced`
}
_WRITTEN_DOWN = "when it was written down"
_NUMBERED = "numbers rows in the order in which they were written down"
LEFT_OUT = {
    "fix_history": {"recorded_at": _WRITTEN_DOWN},
    "evidence": {"recorded_at": _WRITTEN_DOWN},
    "driver_state": {
        "hot_padding": "reserves space on the page",
        "quota_at": "moved by every copy; no case reaches a quota",
        "settled_to": "compared as driver_boot",
        "is_in_new_cell": "compared as driver_cell",
        "kept_from": "derived from driver_command, and saves a look at it",
    },
    "order_event": {"recorded_at": _WRITTEN_DOWN},
    "driver_command": {"driver_command_id": _NUMBERED},
    "order_command": {
        "order_command_id": _NUMBERED,
        "failure_reason": "the driver's word, never looked at",
        "note": "the driver's word, never looked at",
        "is_driver_named": "the request, compared with a repeat",
        "stop_no": "the request, compared with a repeat",
    },
    "outbox": {"outbox_id": _NUMBERED, "created_at": _WRITTEN_DOWN},
    "orders": {
        "geom": "generated from lon_deg and lat_deg",
        "customer_name": "the client's word, never looked at",
        "forgotten_at": "no case erases anything",
        "idempotency_key": "the client's word; the cases make each order once",
        "created_by": "whose idempotency_key it is",
    },
    "parked_fix": dict.fromkeys(
        ("parked_id", "parked_at", "fix_at", "received_at", "reason", "content", *MEASURED),
        "there is no row to compare",
    ),
}
# Nothing of a fix or a command is kept in these.
APART = {
    "access_token": "who may ask",
    "audit": "who did what",
    "boot_seq_block": "compared as driver_boot",
    "boot_seqs": "compared as driver_boot",
    "credential_version": "who may ask",
    "demand_policy": "how devices sample positions",
    "device_credential": "who may ask",
    "driver": "registered",
    "driver_pace": "learned of the history by a command",
    "driver_quota": "no case reaches a quota",
    "phone_credential": "who may ask",
    "driver_sampling": "how devices sample positions",
    "driver_transition": "the matrix",
    "staff": "who may ask",
    "evidence_due": "what is to be looked at again, when time has passed",
    "order_eta": "how late a customer's courier may come, by a job",
    "eta_band": "learned of the history by a command",
    "eta_model": "learned of the history by a command",
    "fix_chunk": "the packed history: no case is that old",
    "invitation": "who may ask",
    "history_bounds": "a rule, which the cases set",
    "kafka_offset": "where a consumer stands; a replay moves it",
    "limits": "rules",
    "order_detail": "the client's words, never looked at",
    "order_offer": "made before it is accepted, which is `assign`",
    "order_transition": "the matrix",
    "order_watch": "who looks",
    "policy": "rules",
    "policy_status": "rules",
    "restaurant": "registered",
    "retention": "a rule, for what is older than any case",
    "series": "numbers that no fix proves",
    "series_point": "numbers that no fix proves",
    "service_area": "registered",
    "simulation_target": "how many the simulators are to run",
    "street_speed": "learned of the history by a command",
    "alert": "what staff is to look at, by a job",
    "order_notice": "late and nearby, by a job",
    "order_photo": "a proof that nothing is derived of",
    "order_pin": "no order of a case has one",
    "order_pin_try": "no order of a case has a PIN",
    "order_retry": "which order replaces another: no case fails one so",
    "order_return": "a way back: no case fails an order so",
    "push_subscription": "who is notified",
    "share_link": "who may ask",
    "webhook": "who is notified",
    "webhook_delivery": "who is notified: no case has a webhook",
    "unassigned_order": "no offer is declined or expires in a case",
}
_AS = {  # how a value is read, where not as it is
    "stored": "ARRAY(SELECT ARRAY[lower(r), upper(r)] FROM unnest(stored) r)",
    "rejected": "ARRAY(SELECT ARRAY[lower(r), upper(r)] FROM unnest(rejected) r)",
    "visible": "ARRAY(SELECT ARRAY[lower(r), upper(r)] FROM unnest(visible) r)",
    "geom": "CASE WHEN geom IS NOT NULL THEN ARRAY[ST_X(geom), ST_Y(geom)] END",
    "duty": "duty::text",
    "command": "command::text",
    "actor": "actor::text",
    "from_state": "from_state::text",
    "to_state": "to_state::text",
    "ended_by": "ended_by::text",
    "state": "state::text",
    "source": "source::text",
    "state_source": "state_source::text",
}
_LETTER = ("boot", "seq", *MEASURED)
_OUTBOX = """
    DELETE FROM outbox WHERE convert_from(key, 'UTF8') = ANY (%s)
    RETURNING outbox_id, topic, convert_from(key, 'UTF8'), convert_from(payload, 'UTF8')::jsonb,
        headers
"""


class Announced(NamedTuple):
    """What went out: the orders' updates, and the dead letters of parked fixes."""

    updates: list[tuple[Any, ...]]
    buried: list[tuple[Any, ...]]


def announced(fleet: Fleet, drivers: Sequence[str], orders: Sequence[UUID]) -> Announced:
    """Take what goes out from the outbox, in its order."""
    rows = sorted(fleet.rows(_OUTBOX, [*drivers, *map(str, orders)]))
    updates, buried = [], []
    for _id, topic, key, p, headers in rows:
        if topic == "tracking-updates":
            what = (p["assignment_no"], p["state"], p["source"], p["driver_id"], p["occurred_at"])
            assert p["order_id"] == key
            updates.append((UUID(key), p["order_seq"], *what))
        else:
            said = dict(headers)
            assert said["driver_id"] == key
            seen = [p.get(name) for name in _LETTER]
            buried.append((key, said["reason"], int(said["received_at_ms"]), *seen))
    return Announced(updates, sorted(buried, key=repr))


def to_announce(world: World) -> list[tuple[Any, ...]]:
    return [
        (order_id, seq, e.assignment_no, e.state, e.source, e.driver_id, wire(e.occurred_at))
        for order_id, order in world.orders.items()
        for seq, e in enumerate(order.events, 1)
    ]


def letter(fix: Fix, reason: str) -> tuple[object, ...]:
    """The dead letter of a parked fix that is refused at last."""
    place = (fix.place.lon_deg, fix.place.lat_deg) if fix.place else (None, None)
    received_at_ms = round(fix.received_at.timestamp() * 1000)
    return (fix.driver_id, reason, received_at_ms, fix.boot, fix.seq, *place, *fix.values)


def wire(at: datetime) -> str:
    """An instant as the contracts write it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def instants_of_events(fleet: Fleet, orders: Sequence[UUID]) -> dict[tuple[UUID, int], datetime]:
    """Read when each event that fixes caused is said to have come to be."""
    statement = """SELECT order_id, order_seq, occurred_at FROM order_event
        WHERE order_id = ANY (%s) AND source = 'gps'"""
    return {row[:2]: row[2] for row in fleet.rows(statement, list(orders))}  # type: ignore[misc]


def of_database(fleet: Fleet, drivers: Sequence[str], orders: Sequence[UUID]) -> Snapshot:
    """Read what stands in the database."""
    statements = []
    tables = [table for table in COMPARED if table != "outbox"]
    for table in tables:
        key, columns = COMPARED[table]
        selected = ", ".join(_AS.get(name, name) for name in columns.split())
        ids = list(drivers) if key == "driver_id" else list(orders)
        statements.append((f"SELECT {selected} FROM {table} WHERE {key} = ANY (%s)", ids))
    answers = fleet.answers(statements)
    found: Snapshot = {
        table: sorted(rows, key=repr) for table, rows in zip(tables, answers, strict=True)
    }
    boots = [row[:2] for row in found["driver_boot"]]
    marks = fix_writer.read_watermarks(fleet.batch_door, boots)
    found["watermarks"] = {(m.driver_id, m.boot): (m.seq, m.missing) for m in marks}
    return found


def of_model(world: World) -> Snapshot:
    """Work out what must stand, table by table."""
    boots = {key: boot for key, boot in world.boots.items() if boot.stored or boot.rejected}
    orders = world.orders.items()
    rows = {
        "fix_history": [
            (fix.driver_id, *_stored(fix), world.quarantine(fix))
            for fixes in world.fixes.values()
            for fix in fixes
        ],
        "driver_boot": [
            (*key, ranges(boot.stored), ranges(boot.rejected)) for key, boot in boots.items()
        ],
        "driver_state": [
            (driver_id, duty, *world.driver_state(driver_id), *_newest(world.newest(driver_id)))
            for driver_id, duty in world.duty.items()
        ],
        "driver_cell": [
            (driver_id, cell_of(newest.place))
            for driver_id in world.duty
            if (newest := world.newest(driver_id)) and newest.place
        ],
        "driver_command": [
            (driver_id, command, "driver", before, after, None, at)
            for driver_id, command, before, after, at in world.duty_commands
        ],
        "orders": [
            (
                *(order_id, 1, order.customer.lon_deg, order.customer.lat_deg),
                *(order.policy.policy_id, order.created_at, order.state, order.assignment_no),
                *(order.source, order.state_at, len(order.events), order.ended_at),
            )
            for order_id, order in orders
        ],
        "assignment": [
            row for order_id, order in orders for row in _assignments(order_id, order, world)
        ],
        "order_command": [
            (order_id, *astuple(commanded))
            for order_id, order in orders
            for commanded in order.commands
        ],
        "evidence": [
            (order_id, number, state, "gps", at)
            for order_id, order in orders
            for number, held in order.assignments.items()
            for state, at in world.proved(order, held).items()
        ],
        "order_event": [
            (order_id, seq, e.assignment_no, e.state, e.source, e.driver_id, e.occurred_at)
            for order_id, order in orders
            for seq, e in enumerate(order.events, 1)
        ],
        "driver_clock": leads_of(world),
        "parked_fix": [],
    }
    snapshot: Snapshot = {table: sorted(found, key=repr) for table, found in rows.items()}
    snapshot["watermarks"] = {key: boot.watermark() for key, boot in boots.items()}
    return snapshot


def ranges(numbers: set[int]) -> list[list[int]]:
    """Whole numbers as the ranges that the database keeps, their ends excluded."""
    found: list[list[int]] = []
    for n in sorted(numbers):
        if found and found[-1][1] == n:
            found[-1][1] = n + 1
        else:
            found.append([n, n + 1])
    return found


def _assignments(order_id: object, order: Order, world: World) -> list[tuple[Any, ...]]:
    rows = []
    for number, held in order.assignments.items():
        facts = world.proved(order, held)
        picked_up = [at for at in (facts.get("picked_up"), held.picked_up_at) if at]
        rows.append(
            (
                *(order_id, number, held.driver_id, held.assigned_at, held.ended_at),
                *(held.ended_by, order.policy.policy_id),
                *(order.restaurant.lon_deg, order.restaurant.lat_deg),
                *(order.customer.lon_deg, order.customer.lat_deg),
                *(facts.get("at_restaurant"), facts.get("picked_up")),
                min(picked_up, default=None),
                *(facts.get("arriving"), facts.get("at_customer")),
                [[*one] for one in held.visible],
                held.stop_no,
            )
        )
    return rows


def _stored(fix: Fix) -> tuple[Any, ...]:
    assert fix.place is not None
    _fix_at, boot, seq = fix.age
    place = (fix.place.lon_deg, fix.place.lat_deg)
    return (boot, seq, fix.fix_at, fix.received_at, *place, *fix.values)


def _newest(fix: Fix | None) -> tuple[Any, ...]:
    if fix is None:
        return (None,) * 13
    assert fix.place is not None
    boot, seq, fix_at, received_at, *seen = _stored(fix)
    geom = [fix.place.lon_deg, fix.place.lat_deg]
    return (fix_at, received_at, boot, seq, *seen, geom, cell_of(fix.place))


def differences(seen: Snapshot, expected: Snapshot) -> list[str]:
    """Name what differs, table by table; empty if all is well."""
    return [
        f"{part}:\n  database: {seen[part]!r}\n  model:    {expected[part]!r}"
        for part in expected
        if seen[part] != expected[part]
    ]
