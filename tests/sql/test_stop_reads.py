"""What the services read and command of drivers with several orders."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from doorstep import errors
from doorstep.credentials import token_sha256
from doorstep.store.pool import open_pool
from doorstep.store.stops import refresh_order_etas, settle_evidence
from driver_api.queries import DriverQueries as CourierQueries
from tests.database import Database
from tests.factories import CUSTOMER, RESTAURANT, make_fix
from tests.sql.fleet import Fleet, connect_as
from tracking_api.fleet.driver_queries import DriverQueries
from tracking_api.orders.queries import OrderQueries
from tracking_api.track.customer_queries import CustomerQueries
from tracking_api.track.presenters import track_members
from tracking_api.track.visibility import TrackLink

TOKENS = (b"1" * 32, b"2" * 32)


@pytest.fixture
def orders(fleet: Fleet) -> list[UUID]:
    """Two confirmed orders; d1 is at the restaurant."""
    fleet.record([make_fix(place=RESTAURANT)])
    fleet.add_token("d1")
    found = []
    for n, token in enumerate(TOKENS):
        order = fleet.create_order(customer=CUSTOMER.north(n * 800), token_sha256=token)
        fleet.command_order(order["order_id"], "confirm")
        found.append(order["order_id"])
    return found


async def test_stops__as_the_services_call_it__are_assigned_read_and_reordered(
    orders: list[UUID], database: Database
) -> None:
    first, second = orders
    tracking = await open_pool(database.url("tracking_api"), 1)
    driving = await open_pool(database.url("driver_api"), 1)
    try:
        store, drivers = OrderQueries(tracking), DriverQueries(tracking)
        for order_id in orders:
            await store.assign_order(order_id, "assign", "anna", "d1", 1, None)
        stops = await drivers.read_stops("d1")
        assert [(one.order_id, one.stop_no) for one in stops] == [(second, 1), (first, 2)]
        assert (await drivers.read_driver("d1")).order_id == second
        await drivers.set_stops("d1", [first, second], "anna")
        assert [one.order_id for one in await drivers.read_stops("d1")] == [first, second]
        with pytest.raises(errors.StopsChanged):
            await drivers.set_stops("d1", [first], "anna")
        _driver, current, _offers, _ends, own = await CourierQueries(driving).read_driver(
            token_sha256("d1")
        )
        assert [(one["order_id"], one["stop_no"]) for one in own] == [
            (str(first), 1),
            (str(second), 2),
        ]
        assert current == {name: value for name, value in own[0].items() if name != "stop_no"}
    finally:
        await tracking.close()
        await driving.close()


async def test_waiting_customer__reads_an_answer_without_the_courier(
    fleet: Fleet, orders: list[UUID], database: Database
) -> None:
    first, second = orders
    for order_id in orders:
        fleet.command_order(order_id, "assign", driver_id="d1")
    with connect_as(database, "driver_events") as conn:
        assert refresh_order_etas(conn, 10) == 1
        assert settle_evidence(conn, 10) == 0
    pool = await open_pool(database.url("customer"), 1, autocommit=True)
    try:
        store = CustomerQueries(pool)
        link = TrackLink(second, TOKENS[1])
        members = track_members((await store.read_tracks([link]))[link])
        assert members["other_delivery_first"] is True
        assert members["position"] is None
        assert list(members["eta"]) == ["earliest_at", "latest_at"]
        assert (await store.read_polls([link]))[link].driver_id is None
        fleet.command_order(first, "cancel")
        after = (await store.read_tracks([link]))[link]
        assert track_members(after)["other_delivery_first"] is False
        assert after.driver_id == "d1"
        first_link = TrackLink(first, TOKENS[0])
        assert (await store.read_tracks([first_link]))[first_link].other_delivery is None
    finally:
        await pool.close()


async def test_coarse_eta__no_longer_written__is_not_shown(
    fleet: Fleet, orders: list[UUID], database: Database
) -> None:
    for order_id in orders:
        fleet.command_order(order_id, "assign", driver_id="d1")
    fleet.run("SELECT order_eta__refresh_v1(10)")
    fleet.run("UPDATE order_eta SET estimated_at = estimated_at - %s", timedelta(minutes=4))
    pool = await open_pool(database.url("customer"), 1, autocommit=True)
    try:
        link = TrackLink(orders[1], TOKENS[1])
        found = (await CustomerQueries(pool).read_tracks([link]))[link]
        assert track_members(found)["eta"] is None
        assert found.other_delivery is not None
    finally:
        await pool.close()
