"""What tracking_api reads: SQLAlchemy Core over `doorstep.store.tables`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    Double,
    Select,
    Text,
    Uuid,
    and_,
    any_,
    column,
    func,
    literal,
    literal_column,
    select,
    true,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from doorstep.errors import UnknownDriver, UnknownOrder
from doorstep.store.records import Order
from doorstep.store.tables import (
    assignment,
    driver,
    driver_sampling,
    driver_state,
    evidence,
    fix_history,
    order_event,
    orders,
    policy,
    restaurant,
)
from tracking_api.orders.cursors import Cursor
from tracking_api.schemas import DriverAnswer, OrderState, ReportingAnswer, RestaurantAnswer
from tracking_api.track.presenters import position_feature_of
from tracking_api.track.straight_eta import OBSERVED_WITHIN_S
from tracking_api.track.visibility import (
    Event,
    Near,
    OrderPoll,
    Position,
    TrackedOrder,
    Window,
    presence_of,
)

TRAIL_POINTS = 80  # 5 min at one every 4 s
FIX_KEY = tuple(  # of driver_history
    column(name, fix_history.c[name].type) for name in ("fix_at", "boot", "seq")
)
NOT_PACKED = ("recorded_at", "altitude_m")  # a packed fix has them no more

_now = func.clock_timestamp().label("now")


async def select_tracks(
    conn: AsyncConnection, order_ids: Sequence[UUID]
) -> dict[UUID, TrackedOrder]:
    """Read orders with their current assignments and those drivers' newest fixes."""
    statement = (
        select(
            _now,
            orders.c.order_id,
            orders.c.state,
            orders.c.assignment_no,
            orders.c.order_seq,
            orders.c.lon_deg.label("destination_lon_deg"),
            orders.c.lat_deg.label("destination_lat_deg"),
            restaurant.c.name,
            restaurant.c.lon_deg.label("restaurant_lon_deg"),
            restaurant.c.lat_deg.label("restaurant_lat_deg"),
            policy.c.dwell_min_s,
            policy.c.pace,
            assignment.c.driver_id,
            assignment.c.assigned_at,
            assignment.c.ended_at,
            *_spot_columns(driver_state.c),
        )
        .select_from(orders)
        .join(restaurant, restaurant.c.restaurant_id == orders.c.restaurant_id)
        .join(policy, policy.c.policy_id == orders.c.policy_id)
        .outerjoin(assignment, _current_assignment())
        .outerjoin(driver_state, driver_state.c.driver_id == assignment.c.driver_id)
        .where(orders.c.order_id == _any_of(order_ids))
    )
    rows = (await conn.execute(statement)).all()
    events = await _select_events(conn, [row.order_id for row in rows])
    found = {row.order_id: _tracked(row, events[row.order_id]) for row in rows}
    await _add_trails(conn, [order for order in found.values() if order.visible is not None])
    return found


def _tracked(row: Any, events: list[Event]) -> TrackedOrder:
    return TrackedOrder(
        now=row.now,
        order_id=row.order_id,
        state=row.state,
        assignment_no=row.assignment_no,
        order_seq=row.order_seq,
        restaurant_name=row.name,
        restaurant=(row.restaurant_lon_deg, row.restaurant_lat_deg),
        destination=(row.destination_lon_deg, row.destination_lat_deg),
        dwell_min_s=row.dwell_min_s,
        pace=row.pace,
        window=Window(row.assigned_at, row.ended_at) if row.assigned_at else None,
        newest=position_of(row) if row.fix_at else None,
        driver_id=row.driver_id,
        events=events,
    )


async def select_polls(conn: AsyncConnection, order_ids: Sequence[UUID]) -> list[OrderPoll]:
    """Look at many orders at once: what decides whether their drivers may be shown now."""
    statement = (
        select(
            _now,
            orders.c.order_id,
            orders.c.order_seq,
            assignment.c.assigned_at,
            assignment.c.ended_at,
            *_spot_columns(driver_state.c),
        )
        .select_from(orders)
        .outerjoin(assignment, _current_assignment())
        .outerjoin(driver_state, driver_state.c.driver_id == assignment.c.driver_id)
        .where(orders.c.order_id == _any_of(order_ids))
    )
    return [
        OrderPoll(
            now,
            order_id,
            order_seq,
            Window(assigned_at, ended_at) if assigned_at else None,
            Position(*spot) if spot[0] else None,
        )
        for now, order_id, order_seq, assigned_at, ended_at, *spot in await conn.execute(statement)
    ]


async def _select_events(
    conn: AsyncConnection, order_ids: Sequence[UUID]
) -> dict[UUID, list[Event]]:
    # What fixes prove may have turned out to be earlier than what was known when it was shown.
    proved = and_(
        evidence.c.order_id == order_event.c.order_id,
        evidence.c.assignment_no == order_event.c.assignment_no,
        evidence.c.state == order_event.c.state,
        evidence.c.source == order_event.c.source,
    )
    statement = (
        select(
            order_event.c.order_id,
            order_event.c.order_seq,
            order_event.c.state,
            order_event.c.source,
            func.coalesce(evidence.c.occurred_at, order_event.c.occurred_at),
            order_event.c.assignment_no,
        )
        .outerjoin_from(order_event, evidence, proved)
        .where(order_event.c.order_id == _any_of(order_ids))
        .order_by(order_event.c.order_seq)
    )
    found: dict[UUID, list[Event]] = {order_id: [] for order_id in order_ids}
    for order_id, *event in await conn.execute(statement):
        found[order_id].append(Event(*event))
    return found


async def _add_trails(conn: AsyncConnection, visible: Sequence[TrackedOrder]) -> None:
    """Give orders whose driver may be seen the fixes of the last minutes, which are never packed.

    A driver has one open assignment, and so one order.
    """
    of_driver = {order.driver_id: order for order in visible}
    wanted = [
        (order.driver_id, _trail_from(order), order.newest.fix_at)
        for order in visible
        if order.newest is not None
    ]
    if not wanted:
        return
    drivers, from_ats, befores = zip(*wanted, strict=True)
    instants = ARRAY(DateTime(timezone=True))
    asked = (
        func.unnest(
            literal(list(drivers), ARRAY(Text)),
            literal(list(from_ats), instants),
            literal(list(befores), instants),
        )
        .table_valued("driver_id", "from_at", "before", name="asked")
        .render_derived()
    )
    trail = (
        select(*_spot_columns(fix_history.c))
        .where(fix_history.c.driver_id == asked.c.driver_id, fix_history.c.quarantine.is_(None))
        .where(fix_history.c.fix_at >= asked.c.from_at, fix_history.c.fix_at < asked.c.before)
        .order_by(fix_history.c.fix_at.desc())
        .limit(TRAIL_POINTS)
        .lateral("trail")
    )
    statement = (
        select(asked.c.driver_id, *_spot_columns(trail.c))
        .select_from(asked.join(trail, true()))
        .order_by(trail.c.fix_at)
    )
    for driver_id, *spot in await conn.execute(statement):
        of_driver[driver_id].trail.append(Position(*spot))


def _trail_from(order: TrackedOrder) -> datetime:
    recent = order.now - timedelta(seconds=OBSERVED_WITHIN_S)
    return max(order.window.assigned_at, recent) if order.window else recent


async def select_history(
    conn: AsyncConnection,
    order_id: UUID,
    from_at: datetime | None,
    to_at: datetime | None,
    *,
    limit: int,
    after_the_end: bool,
) -> list[Position] | None:
    """Read the current assignment's fixes, oldest first; after its end only where that is allowed.

    An order without an assignment has no history yet; None is no order.
    """
    statement = (
        select(_now, assignment.c.driver_id, assignment.c.assigned_at, assignment.c.ended_at)
        .select_from(orders)
        .outerjoin(assignment, _current_assignment())
        .where(orders.c.order_id == order_id)
    )
    row = (await conn.execute(statement)).one_or_none()
    if row is None:
        return None
    if row.assigned_at is None:
        return []
    window = Window(row.assigned_at, row.ended_at)
    if not (window.is_open(row.now) or after_the_end):
        return []
    ends = [instant for instant in (window.ended_at, to_at) if instant is not None]
    trail = (
        driver_history(
            row.driver_id,
            max(window.assigned_at, from_at or window.assigned_at),
            min(ends) if ends else None,
        )
        .order_by(*FIX_KEY)
        .limit(limit)
    )
    return [position_of(found) for found in await conn.execute(trail)]


async def select_orders(
    conn: AsyncConnection, states: Sequence[OrderState], limit: int, after: Cursor | None
) -> list[Order]:
    """Read a page of orders, the newest first."""
    statement = _orders().order_by(orders.c.created_at.desc(), orders.c.order_id.desc())
    if states:
        statement = statement.where(orders.c.state.in_([state.value for state in states]))
    if after is not None:
        statement = statement.where(tuple_(orders.c.created_at, orders.c.order_id) < after)
    return [Order(*row) for row in await conn.execute(statement.limit(limit))]


async def select_order(conn: AsyncConnection, order_id: UUID) -> Order:
    """Read one order. Raises UnknownOrder."""
    row = (await conn.execute(_orders().where(orders.c.order_id == order_id))).one_or_none()
    if row is None:
        raise UnknownOrder
    return Order(*row)


async def select_driver(conn: AsyncConnection, driver_id: str) -> DriverAnswer:
    """Read one driver with their newest position. Raises UnknownDriver."""
    statement = (
        select(
            _now,
            driver.c.driver_id,
            driver.c.name,
            driver_state.c.duty,
            driver_state.c.state,
            driver_state.c.order_id,
            driver_state.c.battery,
            *_spot_columns(driver_state.c),
        )
        .join(driver_state, driver_state.c.driver_id == driver.c.driver_id)
        .where(driver.c.driver_id == driver_id)
    )
    row = (await conn.execute(statement)).one_or_none()
    if row is None:
        raise UnknownDriver
    quiet_s = (row.now - row.received_at).total_seconds() if row.received_at else None
    return DriverAnswer(
        driver_id=row.driver_id,
        name=row.name,
        duty=row.duty,
        state=row.state,
        order_id=row.order_id,
        position=position_feature_of(position_of(row), row.now) if row.fix_at else None,
        battery=row.battery,
        presence=presence_of(quiet_s, row.speed_mps),
    )


async def select_reporting(conn: AsyncConnection, driver_id: str) -> ReportingAnswer:
    """Read how a driver's device reports. Raises UnknownDriver."""
    statement = (
        select(
            driver_sampling.c.sampling_policy,
            driver_sampling.c.is_delivered,
            driver_sampling.c.set_at,
        )
        .select_from(
            driver.outerjoin(driver_sampling, driver_sampling.c.driver_id == driver.c.driver_id)
        )
        .where(driver.c.driver_id == driver_id)
    )
    row = (await conn.execute(statement)).one_or_none()
    if row is None:
        raise UnknownDriver
    return ReportingAnswer(
        driver_id=driver_id,
        set_at=row.set_at,
        delivered=bool(row.is_delivered),
        **(row.sampling_policy or {}),
    )


async def select_nearest(
    conn: AsyncConnection, lon_deg: float, lat_deg: float, limit: int
) -> tuple[datetime, list[Near]]:
    """Read the nearest available drivers, as `assign` would find them, and the database's time."""
    near = func.nearest_drivers_v1(lon_deg, lat_deg, limit).table_valued(
        column("driver_id", Text), column("distance_m", Double), name="near"
    )
    statement = (
        select(_now, near.c.driver_id, near.c.distance_m, *_spot_columns(driver_state.c))
        .join(near, near.c.driver_id == driver_state.c.driver_id)
        .order_by(near.c.distance_m, near.c.driver_id)
    )
    rows = (await conn.execute(statement)).all()
    now: datetime = rows[0].now if rows else datetime.now(UTC)
    return now, [Near(row.driver_id, row.distance_m, position_of(row)) for row in rows]


async def select_restaurants(conn: AsyncConnection) -> list[RestaurantAnswer]:
    """Read every restaurant."""
    statement = select(
        restaurant.c.restaurant_id, restaurant.c.name, restaurant.c.lon_deg, restaurant.c.lat_deg
    ).order_by(restaurant.c.restaurant_id)
    return [
        RestaurantAnswer(restaurant_id=key, name=name, lon_deg=lon_deg, lat_deg=lat_deg)
        for key, name, lon_deg, lat_deg in await conn.execute(statement)
    ]


async def select_policies(conn: AsyncConnection) -> list[dict[str, Any]]:
    """Read every policy, with all its columns."""
    found = await conn.execute(select(policy).order_by(policy.c.policy_id))
    return [dict(row._mapping) for row in found]


def _any_of(order_ids: Sequence[UUID]) -> ColumnElement[Any]:
    return any_(literal(list(order_ids), ARRAY(Uuid)))


def _current_assignment() -> ColumnElement[bool]:
    return and_(
        assignment.c.order_id == orders.c.order_id,
        assignment.c.assignment_no == orders.c.assignment_no,
    )


def driver_history(driver_id: str, from_at: datetime, before: datetime | None) -> Select[Any]:
    """A driver's fixes but those in quarantine: the one place that says where the past is.

    They come with boot and seq, and in no order: FIX_KEY is one.
    """
    until = literal_column("'infinity'::timestamptz") if before is None else literal(before)
    columns = [column(one.name, one.type) for one in fix_history.c if one.name not in NOT_PACKED]
    fixes = func.fix_history__between_v1(driver_id, literal(from_at), until).table_valued(
        *columns, name="fixes"
    )
    return select(*_spot_columns(fixes.c), fixes.c.boot, fixes.c.seq).where(
        fixes.c.quarantine.is_(None)
    )


def _orders() -> Select[Any]:
    """Orders; a driver only while the assignment is open."""
    return select(*order_columns()).outerjoin(
        assignment, and_(_current_assignment(), assignment.c.ended_at.is_(None))
    )


def order_columns() -> list[ColumnElement[Any]]:
    """The columns of `Order`, in its order."""
    return [
        orders.c.order_id,
        orders.c.state,
        orders.c.assignment_no,
        assignment.c.driver_id,
        orders.c.order_seq,
        orders.c.restaurant_id,
        orders.c.lon_deg,
        orders.c.lat_deg,
        orders.c.customer_name,
        orders.c.policy_id,
        orders.c.created_at,
        assignment.c.assigned_at,
        orders.c.ended_at,
    ]


def _spot_columns(columns: Any) -> list[ColumnElement[Any]]:
    return [
        columns.fix_at,
        columns.received_at,
        columns.lon_deg,
        columns.lat_deg,
        columns.accuracy_m,
        columns.speed_mps,
        columns.heading_deg,
    ]


def position_of(row: Any) -> Position:
    """A row that has the columns of a spot."""
    return Position(
        row.fix_at,
        row.received_at,
        row.lon_deg,
        row.lat_deg,
        row.accuracy_m,
        row.speed_mps,
        row.heading_deg,
    )


def _ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
