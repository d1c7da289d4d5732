"""What driver_api reads: SQLAlchemy Core over `doorstep.store.tables`."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from doorstep.errors import UnknownDriver
from doorstep.store.records import Driver
from doorstep.store.tables import assignment, driver_state, orders, restaurant
from driver_api.schemas import CurrentOrder, Place


async def select_driver_and_order(
    conn: AsyncConnection, driver_id: str
) -> tuple[Driver, CurrentOrder | None]:
    """Read a driver and their open order. Raises UnknownDriver."""
    return await select_driver(conn, driver_id), await select_current_order(conn, driver_id)


async def select_driver(conn: AsyncConnection, driver_id: str) -> Driver:
    """Read a driver's duty and state. Raises UnknownDriver."""
    found = await conn.execute(
        select(
            driver_state.c.driver_id,
            driver_state.c.duty,
            driver_state.c.state,
            driver_state.c.order_id,
        ).where(driver_state.c.driver_id == driver_id)
    )
    row = found.one_or_none()
    if row is None:
        raise UnknownDriver
    return Driver(*row)


async def select_current_order(conn: AsyncConnection, driver_id: str) -> CurrentOrder | None:
    """Read the order of the driver's open assignment, with where to fetch and bring it."""
    found = await conn.execute(
        select(
            orders.c.order_id,
            orders.c.state,
            assignment.c.assignment_no,
            assignment.c.assigned_at,
            restaurant.c.name,
            restaurant.c.lon_deg.label("restaurant_lon_deg"),
            restaurant.c.lat_deg.label("restaurant_lat_deg"),
            orders.c.lon_deg,
            orders.c.lat_deg,
        )
        .join(orders, orders.c.order_id == assignment.c.order_id)
        .join(restaurant, restaurant.c.restaurant_id == orders.c.restaurant_id)
        .where(assignment.c.driver_id == driver_id, assignment.c.ended_at.is_(None))
    )
    row = found.one_or_none()
    if row is None:
        return None
    return CurrentOrder(
        order_id=row.order_id,
        state=row.state,
        assignment_no=row.assignment_no,
        assigned_at=row.assigned_at,
        restaurant=Place(
            lon_deg=row.restaurant_lon_deg, lat_deg=row.restaurant_lat_deg, name=row.name
        ),
        destination=Place(lon_deg=row.lon_deg, lat_deg=row.lat_deg),
    )
