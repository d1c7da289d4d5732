"""Which orders are reported as looked at. The seam: the database is a fake."""

from __future__ import annotations

from typing import Any

import pytest

from doorstep.errors import StoreUnavailable
from tests.unit.tracking_api.live_server import Server
from tests.unit.tracking_api.live_world import World
from tests.unit.tracking_api.memory_store import ORDER_ID, OTHER_ID, MemoryStore
from tracking_api.live.watch_reporter import WatchReporter
from tracking_api.track.visibility import TrackLink

LINK, OTHER = TrackLink(ORDER_ID), TrackLink(OTHER_ID)


def reporter(store: Any, streamed: list[TrackLink]) -> tuple[WatchReporter, list[float]]:
    clock = [0.0]
    return WatchReporter(store, lambda: streamed, lambda: clock[0]), clock


async def test_report__a_stream__is_reported_every_20_s() -> None:
    store = MemoryStore()
    one, clock = reporter(store, [LINK])
    for clock[0] in (0.0, 1.0, 19.0, 20.0, 39.0, 40.0):
        await one.report()
    assert store.watched == [LINK] * 3


async def test_report__a_read__is_reported_once() -> None:
    store = MemoryStore()
    one, clock = reporter(store, [])
    one.note(OTHER)
    for clock[0] in (0.0, 30.0):
        await one.report()
    assert store.watched == [OTHER]


async def test_report__repeated_reads_within_20_s__are_one_report() -> None:
    store = MemoryStore()
    one, clock = reporter(store, [LINK])
    for clock[0] in (0.0, 4.0, 8.0):
        one.note(LINK)
        await one.report()
    assert store.watched == [LINK]


async def test_report__the_database_is_away__streams_are_reported_again() -> None:
    store = MemoryStore()

    async def fails(_: object) -> None:
        raise StoreUnavailable

    answers = store.report_watched
    one, _ = reporter(store, [LINK])
    store.report_watched = fails  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await one.report()
    store.report_watched = answers  # type: ignore[method-assign]
    await one.report()
    assert store.watched == [LINK]


async def report_all(server: Server) -> None:
    for one in (server.live.customer_watch, server.live.staff_watch):
        await one.report()


async def test_read__by_staff__makes_no_order_watched_and_by_its_customer_does(
    server: Server, world: World
) -> None:
    order_id = world.create(driver_id="d1")
    for token, watched in (("tok-staff", []), (f"tok-{order_id}", [order_id])):
        assert (await server.get(f"/track/{order_id}", token)).status_code == 200
        await report_all(server)
        assert [link.order_id for link in world.watched] == watched


async def test_stream__by_staff__makes_the_order_watched(server: Server, world: World) -> None:
    order_id = world.create(driver_id="d1")
    async with server.follow(order_id, token="tok-staff") as stream:
        assert await stream.kinds(1) == ["snapshot"]
        await report_all(server)
        assert [link.order_id for link in world.watched] == [order_id]
