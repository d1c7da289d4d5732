"""The fleet's stream; the seams are the database (`World`) and, in all but one, the connection."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import httpx
import numpy as np
import pytest

from doorstep.errors import StoreUnavailable
from tests.unit.tracking_api.live_world import World, frames_of, ms_of, serving
from tracking_api.fleet.viewports import Box
from tracking_api.live import fleet_channel as fleet_module
from tracking_api.live.fleet_channel import FleetChannel
from tracking_api.live.fleet_index import FleetIndex, cluster
from tracking_api.live.frames import Frame
from tracking_api.live.viewer import Viewer

EVERYWHERE = Box(-180, -90, 180, 90)


class Witness(Viewer):
    """A viewer that keeps what it is shown."""

    def __init__(self, fleet: FleetChannel) -> None:
        super().__init__(None, b"", fleet.unsubscribe)  # type: ignore[arg-type]
        self.frames: list[tuple[str, dict[str, Any]]] = []

    def send_latest(self, frame: Frame) -> None:
        message = json.loads(frame.ws.partition(b"{")[2].join([b"{", b""]))
        self.frames.append((message["type"], message["data"]))


@pytest.fixture
def world() -> World:
    world = World()
    for n in range(3):
        world.fix(f"d{n}")
    return world


async def subscribed(fleet: FleetChannel, box: Box = EVERYWHERE, most: int = 2000) -> Witness:
    async with fleet.opened():
        witness = Witness(fleet)
        fleet.subscribe(witness, box, most)
        return witness


def move(fleet: FleetChannel, world: World, driver_id: str) -> tuple[float, float]:
    world.tick(1)
    spot = world.fix(driver_id)
    at_ms = ms_of(spot.fix_at)
    fleet.positions_changed([[driver_id, at_ms, at_ms, spot.lon_deg, spot.lat_deg, 5.0, 4.0, 90.0]])
    return spot.lon_lat


async def test_fleet__opened__sends_all_drivers_and_then_only_changed_ones(world):
    fleet = FleetChannel(world)
    witness = await subscribed(fleet)
    [(kind, body)] = witness.frames
    assert kind == "snapshot"
    assert (len(body["drivers"]), body["total"], body["gone"]) == (3, 3, [])
    fleet.push()
    assert len(witness.frames) == 1  # no driver moved
    place = move(fleet, world, "d1")
    fleet.push()
    kind, body = witness.frames[-1]
    assert (kind, [row[0] for row in body["drivers"]]) == ("drivers", ["d1"])
    assert tuple(body["drivers"][0][2:4]) == place


async def test_fleet__viewport__sends_drivers_that_are_in_it_enter_it_and_leave_it(world):
    fleet = FleetChannel(world)
    west = Box(10.9, 43.0, world.newest["d1"].lon_deg + 1e-7, 44.0)
    witness = await subscribed(fleet, west)
    assert [row[0] for row in witness.frames[0][1]["drivers"]] == ["d0", "d1"]
    move(fleet, world, "d0")  # each fix lies east of all before it
    fleet.push()
    assert witness.frames[-1][1]["gone"] == ["d0"]
    assert witness.frames[-1][1]["total"] == 1


async def test_fleet__driver_removed__is_gone_and_no_fix_brings_them_back(world):
    fleet = FleetChannel(world)
    witness = await subscribed(fleet)
    world.removed.add("d1")
    await fleet.read()
    fleet.push()
    body = witness.frames[-1][1]
    assert (body["gone"], body["total"], body["counts"]["all"]) == (["d1"], 2, {"drivers": 2})
    assert sum(body["counts"]["presence"].values()) == 2
    move(fleet, world, "d1")
    await fleet.read()
    fleet.push()
    assert witness.frames[-1][1]["total"] == 2
    later = await subscribed(fleet)
    assert [row[0] for row in later.frames[0][1]["drivers"]] == ["d0", "d2"]
    world.removed.clear()  # added again
    move(fleet, world, "d1")
    await fleet.read()
    fleet.push()
    assert [row[0] for row in witness.frames[-1][1]["drivers"]] == ["d1"]


async def test_fleet__more_drivers_than_requested__are_clustered(world):
    fleet = FleetChannel(world)
    witness = await subscribed(fleet, most=2)
    body = witness.frames[0][1]
    assert "drivers" not in body
    assert sum(count for _, _, count in body["clusters"]) == 3


async def test_fleet__paused_viewer__gets_all_changes_when_it_resumes(world):
    fleet = FleetChannel(world)
    witness = await subscribed(fleet)
    witness.paused = True
    for driver_id in ("d0", "d1"):
        move(fleet, world, driver_id)
        fleet.push()
    assert len(witness.frames) == 1
    witness.paused = False
    fleet.push()
    assert [row[0] for row in witness.frames[-1][1]["drivers"]] == ["d0", "d1"]


async def test_fleet__small_viewport__gets_the_counts_of_the_whole_fleet(world):
    fleet = FleetChannel(world)
    witness = await subscribed(fleet, Box(0, 0, 1, 1))
    counts = witness.frames[0][1]["counts"]
    assert (counts["all"], counts["duty"]) == ({"drivers": 3}, {"on_duty": 3})
    assert counts["presence"] == {"online": 3}
    world.tick(301)
    await fleet.read()
    fleet.push()
    assert witness.frames[-1][1]["counts"]["presence"] == {"lost": 3}
    fleet.push()
    assert len(witness.frames) == 2  # nothing new, nothing said


async def test_fleet__driver_off_duty_and_silent__counts_to_no_presence(world):
    world.driver_duties = {"d0": "off_duty"}
    fleet = FleetChannel(world)
    witness = await subscribed(fleet)
    world.tick(301)
    await fleet.read()
    fleet.push()
    counts = witness.frames[-1][1]["counts"]
    assert (counts["all"], counts["presence"]) == ({"drivers": 3}, {"lost": 2})


async def test_fleet__several_viewers__share_one_read(world):
    fleet = FleetChannel(world)
    for _ in range(5):
        await subscribed(fleet)
    assert world.fleet_reads == 1


async def test_fleet__more_drivers_than_a_page__are_scanned_page_by_page(world, monkeypatch):
    monkeypatch.setattr(fleet_module, "PAGE_ROWS", 2)
    fleet = FleetChannel(world)
    witness = await subscribed(fleet)
    assert [row[0] for row in witness.frames[0][1]["drivers"]] == ["d0", "d1", "d2"]
    assert world.fleet_reads == 2
    world.driver_states = dict.fromkeys(("d0", "d1", "d2"), "on_break")
    pushed = []
    for _ in range(2):
        await fleet.read()
        fleet.push()
        pushed.append([row[0] for row in witness.frames[-1][1]["drivers"]])
    assert pushed == [["d0", "d1"], ["d2"]]
    assert witness.frames[-1][1]["counts"]["state"] == {"on_break": 3}


async def test_fleet__order_changed__reads_its_present_and_previous_driver_by_id(
    world,
):
    order_id, other = world.create(), world.create()
    world.carried["d1"] = str(order_id)
    fleet = FleetChannel(world)
    await subscribed(fleet)
    fleet.orders_changed([order_id, other], ["d2"])
    world.carried["d2"] = world.carried.pop("d1")
    await fleet.read()
    assert world.fleet_named == [["d1", "d2"]]
    assert fleet.index.driver_of(str(order_id)) == "d2"


async def test_fleet__position_of_an_unknown_driver__reads_that_driver_by_id(world):
    fleet = FleetChannel(world)
    witness = await subscribed(fleet)
    world.fix("a")
    fleet.positions_changed([["a", 0, 0, 1.0, 1.0, None, None, None]])
    await fleet.read()
    fleet.push()
    assert world.fleet_named == [["a"]]
    assert [row[0] for row in witness.frames[-1][1]["drivers"]] == ["a"]


async def test_fleet__row_older_than_the_feed__updates_the_state_but_not_the_position(world):
    fleet = FleetChannel(world)
    witness = await subscribed(fleet)
    later = ms_of(world.newest["d1"].fix_at) + 1000
    fleet.positions_changed([["d1", later, later, 11.5, 43.5, 5.0, 4.0, 90.0]])
    world.driver_states["d1"] = "on_break"
    await fleet.read()
    fleet.push()
    [row] = witness.frames[-1][1]["drivers"]
    assert row[:5] == ["d1", "on_break", 11.5, 43.5, later]


async def test_fleet__two_concurrent_viewers__share_one_scan(world):
    fleet = FleetChannel(world)
    await asyncio.gather(subscribed(fleet), subscribed(fleet))
    assert world.fleet_reads == 1


async def test_fleet__opened__its_rows_are_frozen_for_the_garbage_collector(world):
    fleet = FleetChannel(world)
    witness = await subscribed(fleet)
    try:
        known = {id(row) for row in fleet.index.rows}
        assert len(known) == 3
        assert not known & {id(one) for one in gc.get_objects()}
    finally:
        fleet.unsubscribe(witness)


async def test_fleet__no_viewers__keeps_no_rows(world):
    fleet = FleetChannel(world)
    witness = await subscribed(fleet)
    fleet.unsubscribe(witness)
    assert not fleet.is_watched
    assert len(fleet.index) == 0


async def test_fleet__opened_and_no_viewer_came__keeps_no_rows(world):
    fleet = FleetChannel(world)
    async with fleet.opened():  # and its connection was closed meanwhile
        assert len(fleet.index) == 3
    assert not fleet.is_watched
    assert len(fleet.index) == 0


async def test_fleet__last_viewer_leaves_while_one_arrives__it_gets_all_drivers(world):
    fleet = FleetChannel(world)
    leaving, arriving = await subscribed(fleet), Witness(fleet)
    async with fleet.opened():
        fleet.unsubscribe(leaving)
        fleet.subscribe(arriving, EVERYWHERE)
    assert [(kind, body["total"]) for kind, body in arriving.frames] == [("snapshot", 3)]


@pytest.mark.parametrize("place", ["read_fleet_page", "read_removed_drivers"])
async def test_fleet__last_viewer_leaves_during_a_read__later_viewers_get_changes(
    world, monkeypatch, place
):
    monkeypatch.setattr(fleet_module, "PUSH_INTERVAL_S", 0)
    fleet = FleetChannel(world)
    leaving = await subscribed(fleet)
    read, left = getattr(world, place), asyncio.Event()

    async def read_and_leave(*arguments: Any) -> Any:
        monkeypatch.setattr(world, place, read)
        found = await read(*arguments)
        fleet.unsubscribe(leaving)
        left.set()
        return found

    monkeypatch.setattr(world, place, read_and_leave)
    running = asyncio.create_task(fleet.run())
    await left.wait()
    await asyncio.sleep(0.01)
    assert len(fleet.index) == 0
    witness = await subscribed(fleet)
    move(fleet, world, "d1")
    while len(witness.frames) < 2:
        assert not running.done()
        await asyncio.sleep(0)
    assert [row[0] for row in witness.frames[-1][1]["drivers"]] == ["d1"]
    running.cancel()


async def test_fleet__defect_in_a_push__is_logged_and_pushes_go_on(world, monkeypatch):
    monkeypatch.setattr(fleet_module, "PUSH_INTERVAL_S", 0)
    fleet = FleetChannel(world)
    witness = await subscribed(fleet)
    push = fleet.push

    def broken() -> None:
        monkeypatch.setattr(fleet, "push", push)
        raise ValueError

    monkeypatch.setattr(fleet, "push", broken)
    move(fleet, world, "d1")
    running = asyncio.create_task(fleet.run())
    while len(witness.frames) < 2:
        assert not running.done()
        await asyncio.sleep(0)
    running.cancel()


async def test_fleet__drivers_cannot_be_read__are_read_again(world, monkeypatch):
    fleet = FleetChannel(world)
    await subscribed(fleet)
    fleet.orders_changed([], ["d1"])
    world.away = True
    with pytest.raises(StoreUnavailable):
        await fleet.read()
    world.away = False
    await fleet.read()
    assert world.fleet_named == [["d1"]]


async def test_fleet__older_fix__changes_nothing(world):
    fleet = FleetChannel(world)
    witness = await subscribed(fleet)
    fleet.positions_changed([["d1", 0, 0, 1.0, 1.0, None, None, None]])
    fleet.push()
    assert len(witness.frames) == 1


def test_cluster__viewport__counts_each_driver_once():
    lon_deg, lat_deg = 11 + np.arange(101) / 100, 43 + np.arange(101) / 100
    found = cluster(lon_deg, lat_deg, Box(11, 43, 12, 44))
    assert sum(count for _, _, count in found) == 101
    assert len(found) == 33  # a diagonal, and the far corner, which belongs to no cell but its own
    assert sum(lon * count for lon, _, count in found) == pytest.approx(lon_deg.sum())


def test_cluster__no_drivers__is_empty():
    assert cluster(np.empty(0), np.empty(0), Box(11, 43, 12, 44)) == []


def test_viewport__across_180_degrees__holds_both_sides_and_clusters_there():
    box = Box(179.0, -19.0, -179.0, -16.0)
    lon_deg, lat_deg = np.array([179.5, -179.5, -179.5]), np.full(3, -17.0)
    assert sorted(cluster(lon_deg, lat_deg, box)) == [(-179.5, -17.0, 2), (179.5, -17.0, 1)]
    index = FleetIndex()
    index.lon_deg, index.lat_deg = np.array([179.5, -179.5, 178.0, -178.0]), np.full(4, -17.0)
    assert index.inside(box).tolist() == [True, True, False, False]


async def test_fleet_stream__over_http__is_for_staff_and_a_real_viewport(world):
    order_id = world.create()
    async with serving(world) as (url, _), httpx.AsyncClient(base_url=url, timeout=30) as client:
        for token, bbox, status in [
            ("none", "10,40,12,44", 401),
            (f"tok-{order_id}", "10,40,12,44", 403),
            ("tok-staff", "12,44,10,40", 422),
            ("tok-staff", "12,40,12,44", 422),
            ("tok-staff", "a", 422),
            ("tok-staff", "nan,1,2,3", 422),
        ]:
            headers = {"Authorization": f"Bearer {token}"}
            answer = await client.get("/fleet/stream", params={"bbox": bbox}, headers=headers)
            assert answer.status_code == status
        headers = {"Authorization": "Bearer tok-staff"}
        params = {"bbox": "10,40,12,44"}
        async with client.stream("GET", "/fleet/stream", params=params, headers=headers) as answer:
            text = ""
            async for chunk in answer.aiter_text():
                text += chunk
                if "\n\n" in text:
                    break
        [frame] = frames_of(text)
        assert (frame.kind, frame.data["total"]) == ("snapshot", 3)
