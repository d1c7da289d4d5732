"""The fleet's stream; the seams are the database (`World`) and, in all but one, the connection."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.unit.live_world import World, frames_of, ms_of, serving
from tracking_api.live.fleet import Box, Fleet, clusters
from tracking_api.live.frames import Frame
from tracking_api.live.viewer import Viewer

EVERYWHERE = Box(-180, -90, 180, 90)


class Witness(Viewer):
    """A viewer that keeps what it is shown."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(None, b"", fleet.leave)  # type: ignore[arg-type]
        self.frames: list[tuple[str, dict[str, Any]]] = []

    def show(self, frame: Frame) -> None:
        message = json.loads(frame.ws.partition(b"{")[2].join([b"{", b""]))
        self.frames.append((message["type"], message["data"]))


@pytest.fixture
def world() -> World:
    world = World()
    for n in range(3):
        world.fix(f"d{n}")
    return world


async def entered(fleet: Fleet, box: Box = EVERYWHERE, most: int = 2000) -> Witness:
    await fleet.open()
    witness = Witness(fleet)
    fleet.enter(witness, box, most)
    return witness


def hear(fleet: Fleet, world: World, driver_id: str) -> tuple[float, float]:
    world.tick(1)
    spot = world.fix(driver_id)
    at_ms = ms_of(spot.fix_at)
    fleet.hear([[driver_id, at_ms, at_ms, spot.lon_deg, spot.lat_deg, 5.0, 4.0, 90.0]])
    return spot.lon_lat


async def test_fleet__opened__shows_everybody_and_then_only_who_moved(world):
    fleet = Fleet(world)
    witness = await entered(fleet)
    [(kind, body)] = witness.frames
    assert kind == "snapshot"
    assert (len(body["drivers"]), body["total"], body["gone"]) == (3, 3, [])
    fleet.tell()
    assert len(witness.frames) == 1  # nobody moved
    place = hear(fleet, world, "d1")
    fleet.tell()
    kind, body = witness.frames[-1]
    assert (kind, [row[0] for row in body["drivers"]]) == ("drivers", ["d1"])
    assert tuple(body["drivers"][0][2:4]) == place


async def test_fleet__a_viewport__shows_who_is_in_it_comes_and_goes(world):
    fleet = Fleet(world)
    west = Box(10.9, 43.0, world.newest["d1"].lon_deg + 1e-7, 44.0)
    witness = await entered(fleet, west)
    assert [row[0] for row in witness.frames[0][1]["drivers"]] == ["d0", "d1"]
    hear(fleet, world, "d0")  # each fix lies east of all before it
    fleet.tell()
    assert witness.frames[-1][1]["gone"] == ["d0"]
    assert witness.frames[-1][1]["total"] == 1


async def test_fleet__more_than_a_viewer_asked_for__come_as_clusters(world):
    fleet = Fleet(world)
    witness = await entered(fleet, most=2)
    body = witness.frames[0][1]
    assert "drivers" not in body
    assert sum(count for _, _, count in body["clusters"]) == 3


async def test_fleet__a_slow_viewer__is_told_of_everything_later(world):
    fleet = Fleet(world)
    witness = await entered(fleet)
    witness.paused = True
    for driver_id in ("d0", "d1"):
        hear(fleet, world, driver_id)
        fleet.tell()
    assert len(witness.frames) == 1
    witness.paused = False
    fleet.tell()
    assert [row[0] for row in witness.frames[-1][1]["drivers"]] == ["d0", "d1"]


async def test_fleet__a_small_viewport__is_told_the_counts_of_the_whole_fleet(world):
    fleet = Fleet(world)
    witness = await entered(fleet, Box(0, 0, 1, 1))
    counts = witness.frames[0][1]["counts"]
    assert (counts["all"], counts["duty"]) == ({"drivers": 3}, {"on_duty": 3})
    assert counts["presence"] == {"online": 3}
    world.tick(301)
    await fleet.read(everything=True)
    fleet.tell()
    assert witness.frames[-1][1]["counts"]["presence"] == {"lost": 3}
    fleet.tell()
    assert len(witness.frames) == 2  # nothing new, nothing said


async def test_fleet__many_viewers__one_read(world):
    fleet = Fleet(world)
    for _ in range(5):
        await entered(fleet)
    assert world.fleet_reads == 1


async def test_fleet__nobody_looks__nothing_is_kept(world):
    fleet = Fleet(world)
    witness = await entered(fleet)
    fleet.leave(witness)
    assert not fleet.is_watched
    assert fleet._rows == {}


async def test_fleet__an_older_fix_heard_late__moves_nobody(world):
    fleet = Fleet(world)
    witness = await entered(fleet)
    fleet.hear([["d1", 0, 0, 1.0, 1.0, None, None, None]])
    fleet.tell()
    assert len(witness.frames) == 1


def test_clusters__of_a_viewport__count_everybody_once():
    rows = [["d", "available", 11 + n / 100, 43 + n / 100, 0, 0] for n in range(100)]
    found = clusters(rows, Box(11, 43, 12, 44))
    assert sum(count for _, _, count in found) == 100
    assert 1 < len(found) <= 33


async def test_fleet_stream__over_http__is_for_staff_and_a_real_viewport(world):
    order_id = world.create()
    async with serving(world) as (url, _), httpx.AsyncClient(base_url=url, timeout=30) as client:
        for token, bbox, status in [
            ("none", "10,40,12,44", 401),
            (f"tok-{order_id}", "10,40,12,44", 403),
            ("tok-staff", "12,40,10,44", 422),
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
