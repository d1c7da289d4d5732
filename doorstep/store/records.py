"""The rows that the store accepts and returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from doorstep.fix import Decoded, Fix, Refused

# The columns of one incoming fix, in the order of a row's tuple. Rows are plain tuples: at
# 50,000 a second, an object per fix would cost more than its COPY.
INCOMING_COLUMNS = (
    "n",  # int: number in the batch, unique, in the order of arrival
    "driver_id",  # str
    "boot",  # str | None: boot and seq are both None for a fix without an identity
    "seq",  # int | None
    "fix_at",  # aware datetime | None
    "received_at",  # aware datetime
    "lon_deg",  # float | None
    "lat_deg",  # float | None
    "accuracy_m",  # float | None
    "speed_mps",  # float | None
    "heading_deg",  # float | None
    "altitude_m",  # float | None
    "battery",  # float | None
    "reason",  # str | None: the decoder's refusal; then only driver_id, boot and seq are used
)
INCOMING_TYPES = (
    *("int4", "text", "text", "int8", "timestamptz", "timestamptz"),
    *("float8",) * 7,
    "text",
)

IncomingRow = tuple[
    int,
    str,
    str | None,
    int | None,
    datetime | None,
    datetime,
    float | None,
    float | None,
    float | None,
    float | None,
    float | None,
    float | None,
    float | None,
    str | None,
]


def refused_row(n: int, driver_id: str, refused: Refused, received_at: datetime) -> IncomingRow:
    """Build the row of a fix that the decoder refused: its identity, for the watermark."""
    no_values = (None,) * 7
    return (n, driver_id, refused.boot, refused.seq, None, received_at, *no_values, refused.reason)


def row_of(n: int, driver_id: str, fix: Fix, received_at: datetime) -> IncomingRow:
    """Build the row of a decoded fix."""
    return (
        n,
        driver_id,
        fix.boot,
        fix.seq,
        fix.fix_at,
        received_at,
        fix.lon_deg,
        fix.lat_deg,
        fix.accuracy_m,
        fix.speed_mps,
        fix.heading_deg,
        fix.altitude_m,
        fix.battery,
        None,
    )


def rows_of(driver_id: str, decoded: Decoded, received_at: datetime) -> list[IncomingRow]:
    """Build the rows of a payload. A refused entry has one if its seq could be read."""
    rows: list[IncomingRow] = []
    for n, entry in enumerate(decoded):
        if isinstance(entry, Fix):
            rows.append(row_of(n, driver_id, entry, received_at))
        elif entry.boot is not None:
            rows.append(refused_row(n, driver_id, entry, received_at))
    return rows


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of fix `n`, if it is not `committed`.

    `outcome` is `quarantined` (stored, but no evidence is drawn from it), `duplicate` (stored
    before), `rejected`, `conflict` (different content under a known identity), `dropped`
    (taken off duty) or `parked` (the driver's row was locked, or the fix is `over_quota`: recorded
    later, not acknowledged yet).
    """

    n: int
    outcome: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An unusable input with its original bytes.

    `received_at_ms` is its arrival, which also applies when it is replayed.
    """

    payload: bytes
    driver_id: str | None
    reason: str
    source: str  # mqtt | http | parked
    topic: str
    detail: str
    received_at_ms: int


def letter_columns(letters: Sequence[DeadLetter]) -> dict[str, object]:
    """Build the parameters of the queries that add dead letters: an array per column."""
    return {
        "payloads": [letter.payload for letter in letters],
        "driver_ids": [letter.driver_id for letter in letters],
        "reasons": [letter.reason for letter in letters],
        "sources": [letter.source for letter in letters],
        "topics": [letter.topic for letter in letters],
        "details": [letter.detail for letter in letters],
        "received_at_mss": [letter.received_at_ms for letter in letters],
    }


@dataclass(frozen=True, slots=True)
class Watermark:
    """Everything of this boot up to `seq` is committed or refused, except `missing`.

    `missing` holds inclusive ranges below `seq`. While fixes of the driver are parked over the
    quota, the device is to send nothing of the boot again for `hold_s`. `held` counts fixes of the
    boot that were dropped beyond the number that can be parked.
    """

    driver_id: str
    boot: str
    seq: int
    missing: list[tuple[int, int]]
    hold_s: int | None = None
    held: int = 0


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """One record to publish. `topic` is `tracking-updates` or `dead-letter`."""

    outbox_id: int
    topic: str
    key: bytes | None
    payload: bytes
    headers: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Order:
    """The state of an order. `created` is true only in the answer that created it."""

    order_id: UUID
    state: str
    assignment_no: int
    driver_id: str | None  # the open assignment's
    order_seq: int
    restaurant_id: int
    lon_deg: float
    lat_deg: float
    customer_name: str | None
    policy_id: int
    created_at: datetime
    assigned_at: datetime | None
    ended_at: datetime | None
    created: bool = False


@dataclass(frozen=True, slots=True)
class DetailedOrder:
    """An order with the details that staff sees: the members of a JSON object, instants as text."""

    order: Order
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer of an order to a driver; open while `ended_at` is None.

    `outcome` is accepted, declined, expired or withdrawn.
    """

    order_id: UUID
    driver_id: str
    offered_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver's duty (on_duty, on_break, off_duty), state and open order."""

    driver_id: str
    duty: str
    state: str
    order_id: UUID | None


STAFF_RANKS = ("viewer", "dispatcher", "admin")  # each may do what those before it may


@dataclass(frozen=True, slots=True)
class Token:
    """The holder of a bearer token. `role` is staff, driver, customer or service.

    Staff has a name, and a staff_role: viewer, dispatcher or admin.
    """

    role: str
    driver_id: str | None
    order_id: UUID | None
    name: str | None = None
    staff_role: str | None = None

    def is_staff(self, role: str = "viewer") -> bool:
        """Return whether this is staff that may do what `role` may do."""
        if self.role != "staff" or self.staff_role not in STAFF_RANKS:
            return False
        return STAFF_RANKS.index(self.staff_role) >= STAFF_RANKS.index(role)

    @property
    def actor_id(self) -> str:
        """The name that a command is recorded under."""
        return self.name or self.driver_id or self.role
