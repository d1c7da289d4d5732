"""What dispatch reads from the database: open orders by urgency, a search, map tiles."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

from sqlalchemy import (
    Integer,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
)

from doorstep.store.compiled import compile_statement
from doorstep.store.deadline import fetch_all, fetch_one
from doorstep.store.pool import Pool
from doorstep.store.records import Order
from doorstep.store.tables import (
    assignment,
    device_credential,
    driver,
    driver_state,
    order_return,
    orders,
)
from sql import query
from tracking_api.fleet.presence import LOST_AFTER_S, MOVING_MPS, SILENT_AFTER_S

SQL_FILE = "queries/fleet.sql"
WAITING_STATES = ["created", "confirmed"]
# An order is stuck after this time in one state, in minutes. Meals take 15 minutes to prepare and
# 38 at the 95th percentile; from restaurant to customer it is 5.1 km at the 95th percentile,
# 21 minutes at 4 m/s; a handover takes 4.
STUCK_AFTER_MIN = {
    "created": 10,
    "confirmed": 10,
    "assigned": 20,
    "at_restaurant": 40,
    "picked_up": 30,
    "arriving": 15,
    "at_customer": 15,
}

# An order without a promise is due so long after it was created: the slowest meals, see above.
UNPROMISED_MIN = 60

Group = Literal["waiting", "stuck", "under_way"]
StuckReason = Literal["no_progress", "courier_lost"]
GROUPS: tuple[Group, ...] = ("waiting", "stuck", "under_way")


class AttentionOrder(NamedTuple):
    """An open order with its group, why it is stuck, and when it is due."""

    order: Order
    state_at: datetime
    group: Group
    stuck: StuckReason | None
    due_at: datetime
    promised_to: datetime | None = None
    address: str | None = None
    external_id: str | None = None


class AttentionOrders(NamedTuple):
    """A page of open orders, the most urgent first, and how many each group has in all."""

    now: datetime
    counts: dict[Group, int]
    orders: list[AttentionOrder]


class FoundDriver(NamedTuple):
    """A driver that a search found."""

    driver_id: str
    name: str | None
    state: str
    duty: str
    order_id: UUID | None
    lon_deg: float | None
    lat_deg: float | None
    is_returning: bool


class FoundOrder(NamedTuple):
    """An order that a search found."""

    order_id: UUID
    state: str
    driver_id: str | None


@dataclass(frozen=True, slots=True)
class TileFilters:
    """Which drivers a tile contains; empty means all."""

    states: tuple[str, ...] = ()
    duties: tuple[str, ...] = ()
    presences: tuple[str, ...] = ()


class DispatchStore(Protocol):
    """What dispatch reads. Errors are DoorstepErrors."""

    async def read_attention_orders(self, limit: int) -> AttentionOrders: ...

    async def read_staff_commands(self) -> dict[str, list[str]]: ...

    async def search_drivers(self, text: str, limit: int) -> list[FoundDriver]: ...

    async def search_orders(self, text: str, limit: int) -> list[FoundOrder]: ...

    async def read_tile(
        self, z: int, x: int, y: int, filters: TileFilters, limit: int
    ) -> bytes: ...


@dataclass(frozen=True, slots=True)
class DispatchQueries:
    """The DispatchStore on PostgreSQL."""

    pool: Pool

    async def read_attention_orders(self, limit: int) -> AttentionOrders:
        """Read open orders, the soonest due first."""
        parameters = {
            "limit": limit,
            "waiting_states": WAITING_STATES,
            "stuck_states": list(STUCK_AFTER_MIN),
            "stuck_minutes": list(STUCK_AFTER_MIN.values()),
            "lost_after_s": LOST_AFTER_S,
            "unpromised_min": UNPROMISED_MIN,
        }
        rows = await fetch_all(self.pool, query("read_attention_orders", SQL_FILE), parameters)
        now, counts = rows[0][:2]
        return AttentionOrders(
            now,
            dict(zip(GROUPS, counts, strict=True)),
            [
                AttentionOrder(Order(*row[9:]), row[2], GROUPS[row[3]], *row[4:9])
                for row in rows
                if row[3] is not None
            ],
        )

    async def read_staff_commands(self) -> dict[str, list[str]]:
        """Read the commands that staff may apply, by order state."""
        commands: dict[str, list[str]] = {}
        for state, command in await fetch_all(self.pool, query("read_staff_commands", SQL_FILE)):
            commands.setdefault(state, []).append(command)
        return commands

    async def search_drivers(self, text: str, limit: int) -> list[FoundDriver]:
        """Find drivers by a part of their id or name, an exact id first."""
        parameters = {"text": text, "limit": limit}
        rows = await fetch_all(self.pool, _search_drivers(), parameters)
        return [FoundDriver(*row) for row in rows]

    async def search_orders(self, text: str, limit: int) -> list[FoundOrder]:
        """Find orders by the beginning of their id, open ones first."""
        bounds = uuid_range(text)
        if bounds is None:
            return []
        parameters = {"first": bounds[0], "last": bounds[1], "limit": limit}
        rows = await fetch_all(self.pool, _search_orders(), parameters)
        return [FoundOrder(*row) for row in rows]

    async def read_tile(self, z: int, x: int, y: int, filters: TileFilters, limit: int) -> bytes:
        """Read one vector tile of the fleet, with at most `limit` drivers one by one."""
        parameters = {
            "z": z,
            "x": x,
            "y": y,
            "states": list(filters.states) or None,
            "duties": list(filters.duties) or None,
            "presences": list(filters.presences) or None,
            "silent_after_s": SILENT_AFTER_S,
            "lost_after_s": LOST_AFTER_S,
            "moving_mps": MOVING_MPS,
            "limit": limit,
        }
        row = await fetch_one(self.pool, query("read_fleet_tile", SQL_FILE), parameters)
        return bytes(row[0] or b"") if row else b""


def uuid_range(prefix: str) -> tuple[UUID, UUID] | None:
    """Return the first and the last id with this prefix, for an index range. None for no prefix."""
    digits = prefix.replace("-", "").lower()
    if not 1 <= len(digits) <= 32 or set(digits) - set("0123456789abcdef"):
        return None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


@cache
def _search_drivers() -> bytes:
    text = bindparam("text", type_=Text)
    part = func.lower(text)
    columns = driver.c
    credential = device_credential.c
    is_removed = exists(credential.device_id).where(
        credential.device_id == columns.driver_id, credential.removed_at.is_not(None)
    )
    is_returning = exists(order_return.c.driver_id).where(
        order_return.c.driver_id == columns.driver_id, order_return.c.ended_at.is_(None)
    )
    return compile_statement(
        select(
            columns.driver_id,
            columns.name,
            cast(driver_state.c.state, Text),
            cast(driver_state.c.duty, Text),
            driver_state.c.order_id,
            driver_state.c.lon_deg,
            driver_state.c.lat_deg,
            is_returning,
        )
        .join(driver_state, driver_state.c.driver_id == columns.driver_id)
        .where(~is_removed)
        .where(
            or_(
                func.strpos(func.lower(columns.driver_id), part) > literal_column("0"),
                func.strpos(func.lower(columns.name), part) > literal_column("0"),
            )
        )
        .order_by(columns.driver_id != text, func.length(columns.driver_id), columns.driver_id)
        .limit(bindparam("limit", type_=Integer))
    )


@cache
def _search_orders() -> bytes:
    current = and_(
        assignment.c.order_id == orders.c.order_id,
        assignment.c.assignment_no == orders.c.assignment_no,
    )
    first, last = bindparam("first", type_=Uuid()), bindparam("last", type_=Uuid())
    return compile_statement(
        select(orders.c.order_id, cast(orders.c.state, Text), assignment.c.driver_id)
        .outerjoin(assignment, current)
        .where(orders.c.order_id.between(first, last))
        .order_by(orders.c.ended_at.is_not(None), orders.c.created_at.desc())
        .limit(bindparam("limit", type_=Integer))
    )
