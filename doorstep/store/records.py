"""What the store takes and gives back: frozen values, one class per kind of row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from doorstep.fix import Refused

# The columns of one incoming fix, in the order of a row's tuple. Rows are plain tuples: at
# 50,000 a second an object per fix would cost more than its COPY.
INCOMING_COLUMNS = (
    "n",  # int: the caller's number of this fix, unique in the batch; gives the order of arrival
    "driver_id",  # str
    "boot",  # str | None: None and seq None for a fix that carries no identity of its own
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
    "reason",  # str | None: why the decoder refused it; then only driver_id, boot, seq count
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
    """Make the row of a fix that the decoder refused: only its identity, for the watermark."""
    no_values = (None,) * 7
    return (n, driver_id, refused.boot, refused.seq, None, received_at, *no_values, refused.reason)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of fix `n`, when it was not simply committed.

    `outcome` is `quarantined` (stored, proves nothing), `duplicate` (known already, nothing
    happened), `rejected`, `conflict` (another content under a known identity) or `parked` (the
    driver's row was locked, or the fix is `over_quota`: to be recorded later, not acknowledged
    yet).
    """

    n: int
    outcome: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An input that can't be used, with the bytes as they came.

    `received_at_ms` is when it reached us: sent again, it is judged as of then.
    """

    payload: bytes
    driver_id: str | None
    reason: str
    source: str  # mqtt | http | parked
    topic: str
    detail: str
    received_at_ms: int


@dataclass(frozen=True, slots=True)
class Watermark:
    """Up to `seq` everything of this boot is committed or refused, but for `missing`.

    `missing` holds inclusive ranges below `seq`. While fixes of the driver are parked over the
    quota, the device is to send nothing of the boot again for `hold_s`. `held` counts fixes of the
    boot that were dropped beyond what can be parked: the device still has them.
    """

    driver_id: str
    boot: str
    seq: int
    missing: list[tuple[int, int]]
    hold_s: int | None = None
    held: int = 0


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """One record waiting to be published. `topic` is `tracking-updates` or `dead-letter`."""

    outbox_id: int
    topic: str
    key: bytes | None
    payload: bytes
    headers: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it stands. `created` is true only in the answer that made it."""

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
class Driver:
    """A driver's duty (on_duty, on_break, off_duty), state and open order."""

    driver_id: str
    duty: str
    state: str
    order_id: UUID | None


@dataclass(frozen=True, slots=True)
class Token:
    """What a bearer token stands for. `role` is staff, driver, customer or service."""

    role: str
    driver_id: str | None
    order_id: UUID | None
