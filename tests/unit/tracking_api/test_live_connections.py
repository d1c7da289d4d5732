"""The connections of a stream: idle, stalled, closed. The seam replaced: the database."""

from __future__ import annotations

import asyncio

import httpx

from tests.unit.tracking_api.live_server import (
    PATIENCE_S,
    holds,
)

# What is shown


async def test_connections__viewer_stalled_for_5_s__is_disconnected_and_others_stay(server, world):
    order_id = world.create(driver_id="d1")
    async with server.follow(order_id) as stream, server.follow(order_id):
        assert await stream.kinds(1) == ["snapshot"]
        await holds(lambda: len(server.live.connections) == 2)
        stalled = next(iter(next(one for one in server.live.connections._buckets if one)))
        now = [100.0]
        server.live.connections._clock = lambda: now[0]
        stalled.pause_writing()
        now[0] += 4.9
        server.live.connections.disconnect_stalled()
        assert len(server.live.connections) == 2
        now[0] += 0.2
        server.live.connections.disconnect_stalled()
        await holds(lambda: len(server.live.connections) == 1)


async def test_stream__idle__sends_a_comment_every_ten_seconds(server, world):
    order_id = world.create()
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
        headers = {"Authorization": f"Bearer tok-{order_id}"}
        async with client.stream("GET", f"/track/{order_id}/stream", headers=headers) as answer:
            chunks = answer.aiter_text()
            text = ""
            while "snapshot" not in text:
                text += await anext(chunks)
            for _ in range(10):
                await server.live.connections.maintain_next_bucket()
            while not text.endswith("\n:\n\n"):
                text += await anext(chunks)
            assert text.count("event: ") == 1  # the snapshot, and no other event


async def test_stream__last_viewer_disconnects__drops_the_order(server, world):
    order_id = world.create(driver_id="d1")
    async with server.follow(order_id) as stream:
        assert await stream.kinds(1) == ["snapshot"]
        assert list(server.live.customers.watched_drivers) == ["d1"]
    await holds(lambda: len(server.live.connections) == 0)
    assert server.live.customers.watched_drivers == {}
    assert not server.live.customers._channels


async def test_stream__viewer_that_sends_data__is_disconnected(server, world):
    order_id = world.create()
    port = int(server.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET /track/{order_id}/stream HTTP/1.1\r\nHost: x\r\n"
    writer.write(f"{head}Authorization: Bearer tok-{order_id}\r\n\r\n".encode())
    await reader.readuntil(b"snapshot")
    writer.write(b"x" * 100_000)
    await holds(lambda: len(server.live.connections) == 0)
    writer.close()
    assert server.live.customers.watched_drivers == {}
