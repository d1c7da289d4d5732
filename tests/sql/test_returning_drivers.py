"""Drivers who take a failed order back: available, and marked alike wherever staff reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from doorstep.store.pool import Pool, open_pool
from tests.database import Database
from tests.factories import RESTAURANT, make_fix
from tests.sql.fleet import Fleet
from tests.vector_tile import read_tile
from tracking_api.fleet.dispatch_queries import DispatchQueries, TileFilters
from tracking_api.fleet.driver_queries import DriverQueries
from tracking_api.orders.decision_queries import DecisionQueries
from tracking_api.orders.end_queries import OrderEndQueries

BEGIN = "INSERT INTO order_return (order_id, driver_id, started_at) VALUES (%s, 'd1', now())"
TILE = 9, 272, 186  # with RESTAURANT
LIMIT = 10


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    pool = await open_pool(database.url("tracking_api"), 2)
    yield pool
    await pool.close()


def returning(fleet: Fleet) -> UUID:
    """d1 takes an order back, d2 has nothing to do; both near the restaurant."""
    for n, driver_id in enumerate(("d1", "d2"), 1):
        fleet.record([make_fix(driver_id, place=RESTAURANT.north(100 * n))])
    order_id = fleet.assigned_order("d1")
    for command in ("pick_up", "fail"):
        fleet.command_order(order_id, command)
    fleet.run(BEGIN, order_id)
    return order_id


async def marks(fleet: Fleet, pool: Pool) -> dict[str, list[tuple[str, bool]]]:
    """Who is marked as returning, by where staff reads it."""
    order_id: UUID = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    dispatch, drivers = DispatchQueries(pool), DriverQueries(pool)
    _, near = await drivers.read_nearest(*RESTAURANT, LIMIT, with_orders=False)
    _, all_near = await drivers.read_nearest(*RESTAURANT, LIMIT, with_orders=True)
    found = await dispatch.search_drivers("d", LIMIT)
    ranked = await DecisionQueries(pool).read_couriers(order_id, LIMIT)
    tile = read_tile(await dispatch.read_tile(*TILE, TileFilters(), 1000))["drivers"]
    each = [await drivers.read_driver(driver_id) for driver_id in ("d1", "d2")]
    return {
        "nearest": [(one.driver_id, one.is_returning) for one in near],
        "nearest with orders": [(one.driver_id, one.is_returning) for one in all_near],
        "search": [(one.driver_id, one.is_returning) for one in found],
        "ranking": [(one.driver_id, one.is_returning) for one in ranked],
        "tile": sorted((one["driver_id"], "is_returning" in one) for _, one in tile),
        "driver": [(one.driver_id, one.is_returning) for one in each],
    }


async def test_returning_driver__wherever_staff_reads__is_listed_and_marked(
    fleet: Fleet, pool: Pool
) -> None:
    order_id = returning(fleet)
    assert set(map(tuple, (await marks(fleet, pool)).values())) == {(("d1", True), ("d2", False))}
    fleet.run("SELECT * FROM end_return_as_staff_v1(%s, 'anna')", order_id)
    assert set(map(tuple, (await marks(fleet, pool)).values())) == {(("d1", False), ("d2", False))}


async def test_returning_driver__in_the_list_of_ways_back__has_their_present_state(
    fleet: Fleet, pool: Pool
) -> None:
    order_id = returning(fleet)
    ends = OrderEndQueries(pool)
    assert [(one.order_id, one.driver_id, one.driver_state) for one in await ends.list_returns(9)] \
        == [(order_id, "d1", "available")]  # fmt: skip
    fleet.assigned_order("d1")
    assert [one.driver_state for one in await ends.list_returns(9)] == ["to_restaurant"]


async def test_returning_driver__with_another_order__is_marked_but_on_the_map(
    fleet: Fleet, pool: Pool
) -> None:
    """The map shows what they do now."""
    returning(fleet)
    fleet.assigned_order("d1")
    found = await marks(fleet, pool)
    assert found["tile"] == [("d1", False), ("d2", False)]
    assert found["nearest with orders"] == found["ranking"] == [("d1", True), ("d2", False)]
    assert found["nearest"] == [("d2", False)]
