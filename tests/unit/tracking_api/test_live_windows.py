"""No viewer ever sees a driver outside the order: generated lives of orders, held to each frame.

The hub is the real one; the seams are the database (`World`) and the connection.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from itertools import cycle
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from doorstep.credentials import token_sha256
from tests.unit.tracking_api.live_world import Shown, World, frames_of
from tracking_api.live.hub import Hub
from tracking_api.live.viewer import Viewer
from tracking_api.track.visibility import OrderPoll, OtherDelivery, TrackedOrder, TrackLink

DRIVERS = ("d0", "d1", "d2")
CASES = int(os.environ.get("PROPERTY_CASES", "60"))
ENDED = ("delivered", "cancelled", "failed")

numbers = st.integers(0, 1)
drivers = st.sampled_from(DRIVERS)
fixes = st.tuples(st.just("fix"), drivers, st.sampled_from([0.0, 0.5, 60.0]), st.booleans())
assigns = st.tuples(st.just("assign"), numbers, drivers)
comes = st.tuples(st.just("come"), numbers, st.sampled_from([None, None, "0", "1", "2", "9", "x"]))
polls = st.tuples(st.just("poll"))
others = st.one_of(
    st.tuples(st.sampled_from(["decline", "decline", "picked_up", "delivered"]), numbers),
    st.tuples(st.just("order changed"), numbers, st.integers(-2, 3)),
    st.tuples(st.just("reorder"), numbers),  # whether another delivery comes first
    st.tuples(st.just("go"), numbers),
    st.tuples(st.just("wait")),
)
steps = st.lists(
    st.one_of(fixes, fixes, assigns, comes, polls, polls, others), min_size=25, max_size=60
)


class SlowWorld(World):
    """A database whose answers take a while to arrive, each as many steps as `delays` says."""

    def __init__(self, delays: Sequence[int] = ()) -> None:
        super().__init__()
        self.is_slow = bool(delays)
        self._delays = cycle(delays or (0,))

    async def _track(self, link: TrackLink) -> TrackedOrder | None:
        found = await super()._track(link)
        await self._travel()
        return found

    async def read_polls(self, links: Sequence[TrackLink]) -> dict[TrackLink, OrderPoll]:
        found = await super().read_polls(links)
        await self._travel()
        return found

    async def _travel(self) -> None:
        for _ in range(next(self._delays)):
            await asyncio.sleep(0)


class Witness(Viewer):
    """A viewer that judges each frame the moment it is written."""

    __slots__ = ("frames", "order_id", "resumed_after", "world")

    def __init__(self, hub: Hub, channel: Any, world: SlowWorld) -> None:
        super().__init__(None, b"", lambda viewer: hub.unsubscribe(channel, viewer))  # type: ignore[arg-type]
        self.world = world
        self.order_id: UUID = channel.link.order_id
        self.frames: list[Shown] = []
        self.resumed_after: int | None = None
        self.transport = self  # type: ignore[assignment]

    def write(self, chunk: bytes) -> None:
        for frame in frames_of(chunk.partition(b"\r\n")[2].decode()):
            self._judge(frame)
            self.frames.append(frame)

    def finish(self, frame: Any) -> None:
        self.send(frame)
        self.closing = True
        self._on_disconnect(self)

    def _judge(self, frame: Shown) -> None:
        assert not self.closing, "a frame after the last"
        place = frame.place
        if place is None:
            return
        spot_driver = self.world.driver_of_place[place]
        order = self.world.orders[self.order_id]
        fix_at = frame.data["position"]["properties"]["fix_at"]
        if self.order_id in self.world.waits:  # in a slow one, read before the reordering
            began_at = self.world.waits[self.order_id].earliest_at
            assert self.world.is_slow, "a position before another's delivery"
            assert fix_at <= began_at.isoformat(timespec="milliseconds")[:23] + "Z"
        seen = max((one.data.get("assignment_no", 0) for one in self.frames), default=0)
        if self.world.is_slow:  # what was true when it was read, and nothing newer was told since
            stints = [(no, one) for no, one in order.stints.items() if no >= seen]
            assert any(one.driver_id == spot_driver for _, one in stints)
            stint = next(one for _, one in stints if one.driver_id == spot_driver)
        else:  # what is true now
            assert order.current is not None
            stint = order.current
            assert stint.window.is_open(self.world.now)
            assert stint.driver_id == spot_driver
        assert fix_at >= stint.window.assigned_at.isoformat(timespec="milliseconds")[:23]
        ended = [one for one in self.frames if one.data.get("state") in ENDED]
        assert not ended or frame.kind == "order", "a position after the end"


async def play(world: SlowWorld, script: list[tuple[Any, ...]]) -> None:
    now = [0.0]
    hub = Hub(world, clock=lambda: now[0])
    orders = [world.create() for _ in range(2)]
    witnesses: list[Witness] = []
    background: list[asyncio.Task[None]] = []
    for name, *arguments in script:
        world.tick(1)
        number = arguments[0] % len(orders) if arguments and isinstance(arguments[0], int) else 0
        order = world.orders[orders[number]]
        if name == "assign":
            busy = any(
                one.current and one.current.window.ended_at is None
                and one.current.driver_id == arguments[1]
                for one in world.orders.values()
            )  # fmt: skip
            if not busy and order.state not in ENDED:
                world.assign(order.order_id, arguments[1])
        elif name == "decline" and order.state == "assigned":
            world.decline(order.order_id)
        elif name in ("delivered", "picked_up") and order.state not in ENDED:
            world.move(order.order_id, name)
        elif name == "fix":
            world.fix(arguments[0], arguments[1])
            hub.drivers_moved([arguments[0]] if arguments[2] else [])
        elif name == "reorder":
            if world.waits.pop(order.order_id, None) is None and world.is_assigned(order.order_id):
                world.waits[order.order_id] = OtherDelivery(world.now, world.now)
        elif name == "order changed":
            hub.order_changed(order.order_id, len(order.events) + arguments[1])
        elif name == "poll":
            background.append(asyncio.create_task(hub.poll()))
        elif name == "come":
            background.append(asyncio.create_task(come(hub, world, order, arguments[1], witnesses)))
        elif name == "go" and witnesses:
            gone = witnesses[number % len(witnesses)]
            gone.closing = True
            gone._on_disconnect(gone)
        elif name == "wait":
            now[0] += 5
        await asyncio.sleep(0)
        if not world.is_slow:
            await settle(background)
    await settle(background)
    for _ in range(3):  # no further messages: in sync all the same
        now[0] += 5
        await hub.poll()
        await settle([one.reading for one in hub._channels.values() if one.reading])
    for witness in witnesses:
        ids = [one.event_id for one in witness.frames if one.event_id is not None]
        assert ids == sorted(set(ids)), "an event twice, or out of order"
        if ids and not witness.closing:
            assert ids == list(range(ids[0], ids[0] + len(ids))), "an event is missing"
            assert ids[-1] == len(world.orders[witness.order_id].events), "not in sync"
        told = [one.data for one in witness.frames if "other_delivery_first" in one.data]
        if told and not witness.closing:
            waits = witness.order_id in world.waits
            assert told[-1]["other_delivery_first"] is waits, "the stops' order is not in sync"
        if witness.resumed_after is not None and ids:
            assert ids[0] == witness.resumed_after + 1, "not resumed where it was left"


async def come(
    hub: Hub, world: SlowWorld, order: Any, cursor: str | None, witnesses: list[Witness]
) -> None:
    link = TrackLink(order.order_id, token_sha256(f"tok-{order.order_id}"))
    async with hub.open_channel(link) as channel:
        witness = Witness(hub, channel, world)
        witnesses.append(witness)
        hub.subscribe(channel, witness, cursor)
        if cursor and cursor.isdigit() and int(cursor) <= channel.tracked.order_seq:
            witness.resumed_after = int(cursor)


async def settle(tasks: list[Any]) -> None:
    await asyncio.gather(*tasks)
    for _ in range(20):
        await asyncio.sleep(0)


@settings(max_examples=CASES, deadline=None)
@given(script=steps)
def test_hub__any_sequence_of_changes__every_frame_is_inside_its_window(script):
    asyncio.run(play(SlowWorld(), script))


@settings(max_examples=CASES, deadline=None)
@given(script=steps, delays=st.lists(st.integers(0, 8), min_size=1, max_size=7))
def test_hub__late_query_results__never_show_an_ended_assignment(script, delays):
    asyncio.run(play(SlowWorld(delays), script))


class HeldPolls(SlowWorld):
    """A database whose looks are answered, and arrive when they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()

    async def read_polls(self, links: Sequence[TrackLink]) -> dict[TrackLink, OrderPoll]:
        found = await super().read_polls(links)
        await self.let_go.wait()
        return found


async def test_hub__poll_from_before_a_reassignment__shows_nothing_after_it():
    world = HeldPolls()
    hub = Hub(world)
    order_id = world.create(driver_id="d0")
    world.fix("d0")
    witnesses: list[Witness] = []
    await come(hub, world, world.orders[order_id], None, witnesses)
    world.tick(1)
    world.fix("d0")
    hub.drivers_moved(["d0"])
    poll = asyncio.create_task(hub.poll())
    await settle([])
    world.assign(order_id, "d1")
    await come(hub, world, world.orders[order_id], None, witnesses)  # reads, and tells both
    world.let_go.set()
    await settle([poll])
    assert [(one.kind, one.place) for one in witnesses[0].frames[1:]] == [("order", None)]
