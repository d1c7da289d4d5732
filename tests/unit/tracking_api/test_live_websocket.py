"""WebSockets over real connections; the seam is the database (`World`), and there is no Kafka."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.unit.tracking_api.live_server import (
    PATIENCE_S,
    holds,
)
from tests.unit.tracking_api.live_world import PUBLIC_URL
from tracking_api.live.websocket import MAX_MESSAGE_BYTES, MAX_MESSAGES
from tracking_api.track.links import COOKIE

# What is shown


async def said(viewer: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        found: dict[str, Any] = json.loads(await viewer.recv())
    return found


async def closed_with(viewer: ClientConnection) -> int | None:
    """Read on until it closes; the code that the server gave."""
    try:
        while True:
            await said(viewer)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


async def test_websocket__of_an_order__sends_the_streams_frames(server, world):
    order_id = world.create(driver_id="d1")
    async with server.socket(order_id) as viewer, server.follow(order_id) as stream:
        for happen in (
            lambda: None,
            lambda: world.fix("d1"),
            lambda: world.move(order_id, "picked_up"),
            lambda: world.move(order_id, "delivered"),
        ):
            world.tick()
            happen()
            await server.poll()
            frame, message = await stream.next(), await said(viewer)
            assert message["type"] == frame.kind
            assert message["data"] == frame.data
            assert message.get("id") == frame.event_id
        assert (await said(viewer))["type"] == "end"
        assert await closed_with(viewer) == 1000


async def test_websocket__resumed__sends_each_missed_event_once(server, world):
    order_id = world.create("confirmed", "cancelled")
    url = server.url.replace("http", "ws")
    headers = {"Authorization": f"Bearer tok-{order_id}"}
    async with connect(
        f"{url}/track/{order_id}/ws?last_event_id=1", additional_headers=headers
    ) as viewer:
        frames = [await said(viewer) for _ in range(4)]
    assert [(one["type"], one.get("id")) for one in frames] == [
        ("snapshot", None),
        ("order", 2),
        ("order", 3),
        ("end", None),
    ]


async def test_websocket__with_a_cookie__is_accepted_only_from_our_own_pages(server, world):
    order_id = world.create()
    cookie = f"{COOKIE}=tok-{order_id}"
    for origin in (PUBLIC_URL, server.url):
        async with server.socket(order_id, Cookie=cookie, Origin=origin) as viewer:
            assert (await said(viewer))["type"] == "snapshot"
    other_scheme = server.url.replace("http:", "https:")
    foreign = ("https://evil.test", "null", other_scheme, PUBLIC_URL.replace("https:", "http:"))
    for origin in (*({"Origin": one} for one in foreign), {}):
        with pytest.raises(InvalidStatus) as refused:
            await server.socket(order_id, Cookie=cookie, **origin).__aenter__()
        assert refused.value.response.status_code == 403


async def test_websocket__too_many_messages__closes_with_1008(server, world):
    order_id = world.create()
    async with server.socket(order_id) as viewer:
        for _ in range(MAX_MESSAGES + 1):
            await viewer.send("hello?")
        assert await closed_with(viewer) == 1008
    await holds(lambda: len(server.live.connections) == 0)


async def test_websocket__oversized_message__closes_with_1009(server, world):
    order_id = world.create()
    async with server.socket(order_id) as viewer:
        await viewer.send("x" * (MAX_MESSAGE_BYTES + 1))
        assert await closed_with(viewer) == 1009
    await holds(lambda: len(server.live.connections) == 0)


async def test_websocket__unanswered_pings__disconnect(server, world):
    order_id = world.create()
    async with server.socket(order_id) as viewer:
        await said(viewer)
        viewer.transport.pause_reading()  # it is there and says nothing
        for _ in range(40):
            await server.live.connections.maintain_next_bucket()
        await holds(lambda: len(server.live.connections) == 0)
        assert server.live.customers.watched_drivers == {}


async def test_websocket__not_a_handshake__is_426(server, world):
    order_id = world.create()
    answer = await server.get(f"/track/{order_id}/ws", f"tok-{order_id}")
    assert answer.status_code == 426
