"""Attacks on what a customer may see: tracking_api and its streams over a real database.

A phone runs 100 s ahead or behind, and sends at once or stores and forwards. Its driver brings one
order, stays at that door, and then has the next. Whatever way the customers look, neither sees a
position of the other's order, nor the other's door. Each fix has a place of its own, so that an
answer tells which fix it shows.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from doorstep.credentials import token_sha256
from doorstep.geo import distance_m
from doorstep.store.records import IncomingRow
from tests.database import Database
from tests.factories import AWAY, CUSTOMER, Place, make_fix, now, numbered
from tests.sql.fleet import Fleet
from tests.unit.tracking_api.live_world import frames_of, serving_stores
from tracking_api.live.service import Live
from tracking_api.stores import open_stores

OTHER_DOOR = Place(11.2500, 43.7900)
DOOR_RADIUS_M = 150
PATIENCE_S = 30

Coordinates = tuple[float, float]


@dataclass(frozen=True)
class Order:
    """An order and its customer's token."""

    order_id: UUID
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Viewer:
    """What one stream has shown, and whether it has ended."""

    places: set[Coordinates] = field(default_factory=set)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, kind: str, data: dict[str, Any]) -> None:
        position, eta = data.get("position"), data.get("eta")
        if position is None:
            assert eta is None
        else:
            self.places.add(tuple(position["geometry"]["coordinates"]))
            is_current = eta is None or eta["as_of"] == position["properties"]["fix_at"]
            assert is_current or kind == "position"  # there, the last estimate is repeated for 10 s
        if kind == "end":
            self.ended.set()


class Attack:
    """A phone's life, and everything that the two customers are shown."""

    def __init__(self, fleet: Fleet, url: str, live: Live, stack: AsyncExitStack) -> None:
        self.fleet = fleet
        self.url = url
        self.live = live
        self.stack = stack
        self.taken: dict[Coordinates, tuple[str, datetime]] = {}  # driver and true instant
        self.seq = 0

    # -- the phone ---------------------------------------------------------------------------

    def fix(
        self,
        at: datetime,
        place: Place,
        *,
        ahead_s: float = 0,
        received_at: datetime | None = None,
        driver_id: str = "d1",
    ) -> IncomingRow:
        """A fix taken at an instant by a clock that runs ahead; prompt unless received later."""
        self.seq += 1
        own = Place(round(place.lon_deg + self.seq * 1e-6, 7), place.lat_deg)
        self.taken[own.lon_deg, own.lat_deg] = (driver_id, at)
        return make_fix(
            driver_id,
            self.seq,
            place=own,
            fix_at=at + timedelta(seconds=ahead_s),
            received_at=received_at or at + timedelta(seconds=0.3),
        )

    async def send(self, fixes: Sequence[IncomingRow], batch: int = 12) -> None:
        """Record fixes in batches; after each, tell the hubs that the drivers have moved."""
        for n in range(0, len(fixes), batch):
            rows = list(fixes[n : n + batch])
            await asyncio.to_thread(self.fleet.record, numbered(rows))
            await self.poll()

    async def poll(self) -> None:
        for hub in self.live.hubs:
            hub.drivers_moved(["d1", "d2"])
            for channel in list(hub._channels.values()):
                hub.order_changed(channel.link.order_id, 1_000_000)
            await hub.poll()

    # -- the customers -----------------------------------------------------------------------

    def order(self, token: str, customer: Place, assigned_at: datetime) -> Order:
        """An order of d1, assigned at an instant."""
        order_id = self.fleet.assigned_order(
            "d1", customer=customer, token_sha256=token_sha256(token)
        )
        self.fleet.backdate_assignment(order_id, assigned_at)
        return Order(order_id, token)

    async def follow(self, order: Order) -> dict[str, Viewer]:
        """Follow an order over both kinds of streams, from its start and resumed."""
        viewers = {}
        for cursor in (None, "1"):
            for name, run in (("SSE", self._read_events), ("WebSocket", self._read_socket)):
                viewer = viewers[f"{name} after {cursor}"] = Viewer()
                opened = asyncio.Event()
                task = asyncio.create_task(run(order, cursor, viewer, opened))
                self.stack.push_async_callback(_end, task)
                async with asyncio.timeout(PATIENCE_S):
                    await opened.wait()
        return viewers

    async def _read_events(
        self, order: Order, cursor: str | None, viewer: Viewer, opened: asyncio.Event
    ) -> None:
        headers = order.headers | ({"Last-Event-ID": cursor} if cursor else {})
        path = f"/track/{order.order_id}/stream"
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S) as client,
            client.stream("GET", path, headers=headers) as answer,
        ):
            assert answer.status_code == 200
            text = ""
            async for chunk in answer.aiter_text():
                whole, end, text = (text + chunk).rpartition("\n\n")
                for frame in frames_of(whole + end):
                    viewer.see(frame.kind, frame.data)
                    opened.set()

    async def _read_socket(
        self, order: Order, cursor: str | None, viewer: Viewer, opened: asyncio.Event
    ) -> None:
        query = f"?last_event_id={cursor}" if cursor else ""
        url = f"{self.url.replace('http', 'ws')}/track/{order.order_id}/ws{query}"
        async with connect(url, additional_headers=order.headers, compression=None) as socket:
            try:
                async for message in socket:
                    frame = json.loads(message)
                    viewer.see(frame["type"], frame["data"])
                    opened.set()
            except ConnectionClosed:
                pass

    async def look(self, order: Order) -> Viewer:
        """Look once: GET /track and the history."""
        seen = Viewer()
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S) as client:
            path = f"/track/{order.order_id}"
            track = await client.get(path, headers=order.headers)
            history = await client.get(f"{path}/history", headers=order.headers)
        assert (track.status_code, history.status_code) == (200, 200)
        seen.see("track", track.json())
        seen.places.update(_points(history.json()))
        return seen


def _points(collection: dict[str, Any]) -> Iterator[Coordinates]:
    """Every place in a history, those of its line too."""
    for feature in collection["features"]:
        geometry = feature["geometry"]
        is_line = geometry["type"] == "LineString"
        for one in geometry["coordinates"] if is_line else [geometry["coordinates"]]:
            yield tuple(one)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(result, Exception):
        raise result


@asynccontextmanager
async def attacking(database: Database) -> AsyncIterator[Attack]:
    fleet = Fleet(database)
    fleet.add_drivers("d1", "d2")
    async with (
        open_stores(database.url("tracking_api"), database.url("customer"), 4) as stores,
        serving_stores(stores) as (url, app),
        AsyncExitStack() as stack,
    ):
        yield Attack(fleet, url, app.state.context.live, stack)
    fleet.close()


@pytest.fixture
async def attack(database: Database) -> AsyncIterator[Attack]:
    async with attacking(database) as attack:
        yield attack


def end_first(fleet: Fleet, order_id: UUID, boundary: str, at: datetime) -> None:
    """End d1's assignment of the first order, at an instant."""
    match boundary:
        case "assign" | "deliver":
            fleet.command_order(order_id, "pick_up")
            fleet.command_order(order_id, "deliver")
        case "decline":
            fleet.command_order(order_id, "decline", actor="driver", actor_id="d1")
        case "reassign":
            fleet.command_order(order_id, "reassign", driver_id="d2")
            fleet.backdate_assignment(order_id, at)
    fleet.run("UPDATE assignment SET ended_at = %s WHERE ended_at IS NOT NULL", at)


@pytest.mark.parametrize("ahead_s", [100, -100])
@pytest.mark.parametrize("is_stored", [False, True], ids=["online", "stored"])
@pytest.mark.parametrize("boundary", ["assign", "reassign", "decline", "deliver"])
async def test_clock_off_by_100_s__at_each_boundary__shows_no_other_order_and_no_other_door(
    attack: Attack, boundary: str, is_stored: bool, ahead_s: int
) -> None:
    start_at = now() - timedelta(minutes=20)
    switch_at = start_at + timedelta(minutes=8)
    end_at = switch_at - timedelta(minutes=2 if boundary == "assign" else 0)
    sent_at = now() - timedelta(seconds=20)
    first = attack.order("cst_first", OTHER_DOOR, start_at)

    def ride(since: datetime, until: datetime, *legs: Place) -> list[IncomingRow]:
        steps = int((until - since).total_seconds()) // 5
        received_at = sent_at if is_stored else None
        return [
            attack.fix(
                since + timedelta(seconds=5 * n),
                legs[n * len(legs) // steps],
                ahead_s=ahead_s,
                received_at=received_at,
            )
            for n in range(steps)
        ]

    prompt = attack.fix(start_at, AWAY, ahead_s=ahead_s)  # tells how far the clock is off
    before = ride(start_at, end_at, AWAY, OTHER_DOOR.north(400), OTHER_DOOR)
    between = ride(end_at, switch_at, OTHER_DOOR.north(200)) if end_at < switch_at else []
    after = ride(
        switch_at, sent_at, OTHER_DOOR, OTHER_DOOR.north(60), AWAY.north(100), AWAY.north(300)
    )
    theirs = [
        attack.fix(switch_at + timedelta(seconds=60 + n), AWAY.north(900), driver_id="d2")
        for n in range(3)
    ]

    await attack.send([prompt])
    of_first = await attack.follow(first)
    if not is_stored:
        await attack.send(before)
    of_first |= {"GET before": await attack.look(first)}
    end_first(attack.fleet, first.order_id, boundary, end_at)
    await attack.poll()
    second = attack.order("cst_second", CUSTOMER, switch_at)
    of_second = {"GET at first": await attack.look(second)} | await attack.follow(second)
    if is_stored:
        between += before
        random.Random(boundary).shuffle(between)
    await attack.send(between)
    of_second |= {"GET between": await attack.look(second)}
    of_first |= {"GET after": await attack.look(first)}
    await attack.send(after + theirs)
    last = attack.fix(now() - timedelta(seconds=5), AWAY.north(500), ahead_s=ahead_s)
    newest = (last[6], last[7])
    await attack.send([last])
    of_second |= {"GET at last": await attack.look(second)}
    of_first |= {"GET at last": await attack.look(first)}
    late = await attack.follow(second)
    of_second |= {f"late {name}": viewer for name, viewer in late.items()}

    for order in (first, second):
        attack.fleet.run(
            "SELECT * FROM apply_order_command_v1(%s, 'cancel', 'staff', 'staff', NULL, NULL)"
            " WHERE EXISTS (SELECT FROM orders WHERE order_id = %s AND ended_at IS NULL)",
            order.order_id,
            order.order_id,
        )
    await attack.poll()
    for name, viewer in (of_first | of_second).items():
        if not name.startswith("GET"):
            async with asyncio.timeout(PATIENCE_S):  # whatever came before it has been read
                await viewer.ended.wait()

    for name, viewer in of_second.items():
        for place in viewer.places:
            driver_id, at = attack.taken[place]
            assert (driver_id, at >= switch_at) == ("d1", True), f"{name} shows another order"
            assert distance_m(place, OTHER_DOOR) > DOOR_RADIUS_M, f"{name} shows another door"
        if name not in ("GET at first", "GET between"):
            assert newest in viewer.places, f"{name} does not show the newest fix"
    for name, viewer in of_first.items():
        for place in viewer.places:
            driver_id, at = attack.taken[place]
            is_d2s = boundary == "reassign" and driver_id == "d2"
            assert is_d2s or (driver_id == "d1" and at < end_at), f"{name} shows another order"
    assert not of_first["GET at last"].places or boundary == "reassign"


async def test_link__revoked_while_followed__ends_its_streams_at_the_next_poll(
    attack: Attack,
) -> None:
    order = attack.order("cst_mine", CUSTOMER, now() - timedelta(minutes=5))
    await attack.send([attack.fix(now() - timedelta(seconds=9), AWAY)])
    viewers = await attack.follow(order)
    attack.fleet.run("SELECT revoke_customer_tokens_v1(%s)", order.order_id)
    await attack.send([attack.fix(now() - timedelta(seconds=3), AWAY.north(30))])
    for viewer in viewers.values():
        async with asyncio.timeout(PATIENCE_S):
            await viewer.ended.wait()
        assert len(viewer.places) == 1


async def test_history__longer_than_a_page__is_marked_as_truncated(attack: Attack) -> None:
    start_at = now() - timedelta(hours=3)
    order = attack.order("cst_mine", CUSTOMER, start_at)
    rows = [attack.fix(start_at + timedelta(seconds=5 + 2 * n), AWAY) for n in range(5001)]
    await attack.send(rows, batch=2000)
    async with httpx.AsyncClient(base_url=attack.url, timeout=PATIENCE_S) as client:
        path = f"/track/{order.order_id}/history"
        whole = (await client.get(path, headers=order.headers)).json()
        until = {"to": (start_at + timedelta(seconds=8)).isoformat()}
        part = (await client.get(path, headers=order.headers, params=until)).json()
    assert (whole["truncated"], len(whole["features"])) == (True, 5001)  # 5,000 and the line
    assert (part["truncated"], len(part["features"])) == (False, 3)
