"""Streams that are admitted in batches; the seam is the database, whose reads a test holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from uuid import UUID

import httpx
import pytest

from tests.unit.tracking_api.live_server import PATIENCE_S, Server, holds
from tests.unit.tracking_api.live_world import World
from tracking_api.live import admission
from tracking_api.track.visibility import TrackedOrder, TrackLink

VIEWERS = 30


class HeldWorld(World):
    """A world whose reads of orders wait until `may_read` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.may_read = asyncio.Event()
        self.batches: list[int] = []

    async def read_tracks(
        self, links: Sequence[TrackLink], held: object = None
    ) -> dict[TrackLink, TrackedOrder]:
        self.batches.append(len(links))
        await self.may_read.wait()
        return await super().read_tracks(links, held)


@pytest.fixture
async def world() -> HeldWorld:
    return HeldWorld()


async def test_viewers_of_one_order__that_come_during_a_read__share_the_next_one(server, world):
    order_id = world.create("picked_up", driver_id="d1")
    async with AsyncExitStack() as stack:

        async def first_frame() -> str:
            stream = await stack.enter_async_context(server.follow(order_id))
            return (await stream.next()).kind

        first = asyncio.create_task(first_frame())
        await holds(lambda: world.batches == [1])
        others = [asyncio.create_task(first_frame()) for _ in range(VIEWERS)]
        await holds(lambda: server.live.admission.pending_viewers == VIEWERS)
        world.may_read.set()
        kinds = await asyncio.gather(first, *others)
    assert kinds == ["snapshot"] * (VIEWERS + 1)
    assert world.batches == [1, 1]


async def test_viewers_of_many_orders__that_come_during_a_read__share_a_statement(server, world):
    order_ids = [world.create(driver_id=f"d{n}") for n in range(VIEWERS)]
    async with AsyncExitStack() as stack:

        async def first_frame(n: int) -> str:
            stream = await stack.enter_async_context(server.follow(order_ids[n]))
            return (await stream.next()).data["order_id"]

        first = asyncio.create_task(first_frame(0))
        await holds(lambda: world.batches == [1])
        others = [asyncio.create_task(first_frame(n)) for n in range(1, VIEWERS)]
        await holds(lambda: server.live.admission.pending_viewers == VIEWERS - 1)
        world.may_read.set()
        found = await asyncio.gather(first, *others)
    assert found == [str(one) for one in order_ids]
    assert world.batches == [1, VIEWERS - 1]


async def test_viewer_that_leaves_during_the_read__is_not_counted(server, world):
    order_id = world.create(driver_id="d1")
    leaving = asyncio.create_task(server.follow(order_id).__aenter__())
    await holds(lambda: world.batches == [1])
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    world.may_read.set()
    async with server.follow(order_id) as stream:
        assert (await stream.next()).kind == "snapshot"
        assert len(server.live.connections) == 1


async def test_link_revoked_before_the_read__gets_the_404_of_any_bad_link(server, world):
    order_id = world.create(driver_id="d1")
    answer = asyncio.create_task(server.get(f"/track/{order_id}/stream", f"tok-{order_id}"))
    await holds(lambda: world.batches == [1])
    world.tokens.clear()
    world.may_read.set()
    assert (await answer).json() == (await server.get(f"/track/{order_id}", "tok-forged")).json()


async def test_database_unavailable__is_the_application_s_503(server, world):
    order_id = world.create(driver_id="d1")
    world.away = True
    world.may_read.set()
    answer = await server.get(f"/track/{order_id}/stream", f"tok-{order_id}")
    assert answer.status_code == 503
    world.away = False
    async with server.follow(order_id) as stream:
        assert (await stream.next()).kind == "snapshot"


@pytest.mark.parametrize("query", ["", "?last_event_id=1"])
async def test_head__of_either_path__has_the_same_headers(server, world, query):
    order_id = world.create(driver_id="d1")
    world.may_read.set()
    headers = {"Authorization": f"Bearer tok-{order_id}"}
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client,
        client.stream("GET", f"/track/{order_id}/stream{query}", headers=headers) as answer,
    ):
        assert sorted(set(answer.headers) - {"date", "server"}) == [
            "cache-control",
            "content-security-policy",
            "content-type",
            "cross-origin-opener-policy",
            "cross-origin-resource-policy",
            "permissions-policy",
            "referrer-policy",
            "transfer-encoding",
            "x-accel-buffering",
            "x-content-type-options",
            "x-frame-options",
        ]
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize("cut", [10, 60, -2])
async def test_head__in_two_segments__is_answered(server, world, cut):
    order_id = world.create(driver_id="d1")
    world.may_read.set()
    head = _head_of(order_id)
    reader, writer = await asyncio.open_connection(*_address_of(server))
    writer.write(head[:cut])
    await asyncio.sleep(0.05)
    writer.write(head[cut:])
    assert b"event: snapshot" in await _read_until_snapshot(reader)
    writer.close()


async def test_request_after_the_head__of_a_stream__is_not_answered(server, world):
    order_id = world.create(driver_id="d1")
    reader, writer = await asyncio.open_connection(*_address_of(server))
    writer.write(_head_of(order_id))
    await holds(lambda: world.batches == [1])
    writer.write(f"GET /track/{order_id} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await holds(lambda: server.live.admission.pending_viewers == 0)
    world.may_read.set()
    answer = await _read_until_snapshot(reader)
    assert answer.count(b"HTTP/1.1") == 1
    writer.close()


@pytest.mark.parametrize(("short", "beside_a_request"), [(False, False), (True, True)])
async def test_many_heads_at_once__with_slices_of_no_length__are_all_answered(
    server, world, monkeypatch, short: bool, beside_a_request: bool
):
    monkeypatch.setattr(admission, "SHORT_SLICE_S" if short else "SLICE_S", 0.0)
    order_ids = [world.create(driver_id=f"d{n}") for n in range(VIEWERS)]
    connections = [await asyncio.open_connection(*_address_of(server)) for _ in order_ids]
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        request = None
        if beside_a_request:
            headers = {"Authorization": f"Bearer tok-{order_ids[0]}"}
            answer = client.get(f"/track/{order_ids[0]}", headers=headers)
            request = asyncio.create_task(answer)
            await holds(lambda: world.batches == [1])
        for order_id, (_, writer) in zip(order_ids, connections, strict=True):
            writer.write(_head_of(order_id))
        if beside_a_request:
            await holds(lambda: server.live.admission.is_busy)
        world.may_read.set()
        found = []
        for order_id, (reader, writer) in zip(order_ids, connections, strict=True):
            found.append(str(order_id).encode() in await _read_until_snapshot(reader))
            writer.close()
        assert found == [True] * VIEWERS
        assert request is None or (await request).status_code == 200


def _address_of(server: Server) -> tuple[str, int]:
    url = httpx.URL(server.url)
    return url.host, url.port or 80


def _head_of(order_id: UUID) -> bytes:
    return (
        f"GET /track/{order_id}/stream HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer tok-{order_id}\r\n\r\n"
    ).encode()


async def _read_until_snapshot(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        return await reader.readuntil(b"\n\n\r\n")
