"""What dispatch reads: orders in the order of their need, a search, the past, tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    Double,
    Text,
    and_,
    case,
    column,
    func,
    literal,
    null,
    or_,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from doorstep.errors import UnknownDriver
from doorstep.store.records import Order
from doorstep.store.tables import (
    assignment,
    driver,
    driver_state,
    order_transition,
    orders,
)
from tracking_api.track.queries import FIX_KEY, driver_history, order_columns, position_of
from tracking_api.track.visibility import LOST_AFTER_S, MOVING_MPS, SILENT_AFTER_S, FixKey, Position

WAITING = ("created", "confirmed")
# An order is stuck when it stood in one state for longer than this, in minutes. Meals take 15
# minutes to prepare and 38 at the 95th percentile; from restaurant to customer it is 5.1 km at the
# 95th percentile, 21 minutes at 4 m/s; handing over takes 4.
STUCK_AFTER_MIN = {
    "created": 10,
    "confirmed": 10,
    "assigned": 20,
    "at_restaurant": 40,
    "picked_up": 30,
    "arriving": 15,
    "at_customer": 15,
}
MOST_REPLAYED = 500  # drivers at once
REPLAY_STEPS = 240

Group = Literal["waiting", "stuck", "under_way"]
StuckReason = Literal["no_progress", "courier_lost"]
GROUPS: tuple[Group, ...] = ("waiting", "stuck", "under_way")


class AttentionOrder(NamedTuple):
    """An open order, and how much it needs a dispatcher."""

    order: Order
    state_at: datetime
    group: Group
    stuck: StuckReason | None


class HistoricFix(NamedTuple):
    """One fix of a driver's history."""

    key: FixKey
    spot: Position


class FoundDriver(NamedTuple):
    """A driver that a search found."""

    driver_id: str
    name: str | None
    state: str
    duty: str
    order_id: UUID | None
    lon_deg: float | None
    lat_deg: float | None


class FoundOrder(NamedTuple):
    """An order that a search found."""

    order_id: UUID
    state: str
    driver_id: str | None


@dataclass(frozen=True, slots=True)
class Filters:
    """Which drivers a tile holds; empty is all."""

    states: tuple[str, ...] = ()
    duties: tuple[str, ...] = ()
    presences: tuple[str, ...] = ()


class Replayed(NamedTuple):
    """Where some drivers were: (driver_id, fix_at, lon_deg, lat_deg), by driver and time."""

    step_s: float
    driver_ids: list[str]
    more: bool  # there are more drivers than are replayed at once
    fixes: list[tuple[str, datetime, float, float]]


class DispatchStore(Protocol):
    """The seam between dispatch's routes and the database. Errors are DoorstepErrors."""

    async def read_attention_orders(
        self, limit: int
    ) -> tuple[datetime, dict[Group, int], list[AttentionOrder], dict[str, list[str]]]: ...

    async def search(self, text: str, limit: int) -> tuple[list[FoundDriver], list[FoundOrder]]: ...

    async def read_past(
        self,
        driver_id: str,
        from_at: datetime,
        to_at: datetime,
        limit: int,
        after: FixKey | None = None,
    ) -> list[HistoricFix]: ...

    async def read_replay(
        self, box: tuple[float, float, float, float], from_at: datetime, to_at: datetime
    ) -> Replayed: ...

    async def read_tile(self, z: int, x: int, y: int, filters: Filters, at_most: int) -> bytes: ...


async def select_attention_orders(
    conn: AsyncConnection, limit: int
) -> tuple[datetime, dict[Group, int], list[AttentionOrder], dict[str, list[str]]]:
    """Read open orders, those that need somebody first: without a courier, then stuck ones.

    Also the database's time, how many each group has, and what staff may do in each state.
    """
    now: datetime = (await conn.execute(select(func.clock_timestamp()))).scalar_one()
    too_long = case(
        *[
            (orders.c.state == state, orders.c.state_at < now - timedelta(minutes=minutes))
            for state, minutes in STUCK_AFTER_MIN.items()
        ],
        else_=False,
    )
    lost = and_(
        assignment.c.driver_id.is_not(None),
        or_(
            driver_state.c.received_at.is_(None),
            driver_state.c.received_at < now - timedelta(seconds=LOST_AFTER_S),
        ),
    )
    stuck = case((too_long, "no_progress"), (lost, "courier_lost"), else_=null())
    group = case((orders.c.state.in_(WAITING), 0), (or_(too_long, lost), 1), else_=2)
    open_assignment = and_(
        assignment.c.order_id == orders.c.order_id,
        assignment.c.assignment_no == orders.c.assignment_no,
        assignment.c.ended_at.is_(None),
    )
    both = orders.outerjoin(assignment, open_assignment).outerjoin(
        driver_state, driver_state.c.driver_id == assignment.c.driver_id
    )
    counted = (
        select(group.label("n"), func.count())
        .select_from(both)
        .where(orders.c.ended_at.is_(None))
        .group_by(column("n"))
    )
    counts = dict.fromkeys(GROUPS, 0)
    counts |= {GROUPS[n]: count for n, count in await conn.execute(counted)}
    statement = (
        select(*order_columns(), orders.c.state_at, group, stuck)
        .select_from(both)
        .where(orders.c.ended_at.is_(None))
        .order_by(group, case((group == 0, orders.c.created_at), else_=orders.c.state_at))
        .limit(limit)
    )
    found = [
        AttentionOrder(Order(*row), state_at, GROUPS[n], why)
        for *row, state_at, n, why in await conn.execute(statement)
    ]
    return now, counts, found, await _select_allowed(conn)


async def _select_allowed(conn: AsyncConnection) -> dict[str, list[str]]:
    statement = (
        select(order_transition.c.from_state, order_transition.c.command)
        .where(order_transition.c.actor == "staff")
        .distinct()
        .order_by(order_transition.c.from_state, order_transition.c.command)
    )
    allowed: dict[str, list[str]] = {}
    for state, command in await conn.execute(statement):
        allowed.setdefault(state, []).append(command)
    return allowed


async def select_found(
    conn: AsyncConnection, text: str, limit: int
) -> tuple[list[FoundDriver], list[FoundOrder]]:
    """Find drivers by a part of their id or name, and orders by the beginning of their id."""
    by_driver = (
        select(
            driver.c.driver_id,
            driver.c.name,
            driver_state.c.state,
            driver_state.c.duty,
            driver_state.c.order_id,
            driver_state.c.lon_deg,
            driver_state.c.lat_deg,
        )
        .join(driver_state, driver_state.c.driver_id == driver.c.driver_id)
        .where(
            or_(
                driver.c.driver_id.icontains(text, autoescape=True),
                driver.c.name.icontains(text, autoescape=True),
            )
        )
        .order_by(driver.c.driver_id != text, func.length(driver.c.driver_id), driver.c.driver_id)
        .limit(limit)
    )
    drivers = [FoundDriver(*row) for row in await conn.execute(by_driver)]
    ids = uuids_beginning(text)
    if ids is None:
        return drivers, []
    by_order = (
        select(orders.c.order_id, orders.c.state, assignment.c.driver_id)
        .outerjoin(
            assignment,
            and_(
                assignment.c.order_id == orders.c.order_id,
                assignment.c.assignment_no == orders.c.assignment_no,
            ),
        )
        .where(orders.c.order_id.between(*ids))
        .order_by(orders.c.ended_at.is_not(None), orders.c.created_at.desc())
        .limit(limit)
    )
    return drivers, [FoundOrder(*row) for row in await conn.execute(by_order)]


def uuids_beginning(text: str) -> tuple[UUID, UUID] | None:
    """The first and the last id with this beginning: a range that an index knows."""
    digits = text.replace("-", "").lower()
    if not 1 <= len(digits) <= 32 or set(digits) - set("0123456789abcdef"):
        return None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


async def select_past(
    conn: AsyncConnection,
    driver_id: str,
    from_at: datetime,
    to_at: datetime,
    limit: int,
    after: FixKey | None,
) -> list[HistoricFix]:
    """Read a page of a driver's fixes, oldest first. Raises UnknownDriver."""
    known = select(driver.c.driver_id).where(driver.c.driver_id == driver_id)
    if (await conn.execute(known)).one_or_none() is None:
        raise UnknownDriver
    found: list[HistoricFix] = []
    since = max(from_at, after.fix_at) if after is not None else from_at
    while since < to_at and len(found) < limit:
        # Day by day: packed fixes are unpacked before they can be counted.
        before = min(to_at, _next_day(since))
        statement = driver_history(driver_id, since, before).order_by(*FIX_KEY)
        if after is not None:
            statement = statement.where(tuple_(*FIX_KEY) > after)
        rows = await conn.execute(statement.limit(limit - len(found)))
        found += [
            HistoricFix(FixKey(row.fix_at, row.boot, row.seq), position_of(row)) for row in rows
        ]
        since = before
    return found


def _next_day(at: datetime) -> datetime:
    try:
        return datetime.combine(at.astimezone(UTC).date() + timedelta(days=1), time(), UTC)
    except OverflowError:  # the last day of year 9999
        return datetime.max.replace(tzinfo=at.tzinfo)


async def select_replay(
    conn: AsyncConnection,
    box: tuple[float, float, float, float],
    from_at: datetime,
    to_at: datetime,
) -> Replayed:
    """Read where the drivers who are in a box now were in a time range."""
    west, south, east, north = box
    here = (
        select(driver_state.c.driver_id)
        .where(driver_state.c.lon_deg.between(west, east))
        .where(driver_state.c.lat_deg.between(south, north))
        .order_by(driver_state.c.driver_id)
        .limit(MOST_REPLAYED + 1)
    )
    found = [driver_id for (driver_id,) in await conn.execute(here)]
    ids = found[:MOST_REPLAYED]
    step_s = max(1.0, (to_at - from_at).total_seconds() / REPLAY_STEPS)
    past = func.fleet_history_v1(literal(ids, ARRAY(Text)), from_at, to_at, step_s).table_valued(
        column("driver_id", Text),
        column("fix_at", DateTime(timezone=True)),
        column("lon_deg", Double),
        column("lat_deg", Double),
        name="past",
    )
    rows = await conn.execute(select(past))
    return Replayed(step_s, ids, len(found) > MOST_REPLAYED, [tuple(row) for row in rows])


async def select_tile(
    conn: AsyncConnection, z: int, x: int, y: int, filters: Filters, at_most: int
) -> bytes:
    """Read one vector tile of the fleet."""
    tile = func.fleet_tile_v1(
        z,
        x,
        y,
        _texts(filters.states),
        _texts(filters.duties),
        _texts(filters.presences),
        literal(SILENT_AFTER_S, Double),
        literal(LOST_AFTER_S, Double),
        literal(MOVING_MPS, Double),
        at_most,
    )
    return bytes((await conn.execute(select(tile))).scalar_one() or b"")


def _texts(values: Sequence[str]) -> ColumnElement[Any]:
    return literal(list(values) or None, ARRAY(Text))
