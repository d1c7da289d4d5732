"""Streams over real connections; the seam is the database (`World`), and there is no Kafka."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest

from doorstep.credentials import token_sha256
from doorstep.store.records import Token
from tests.unit.tracking_api.live_server import (
    PATIENCE_S,
    Reader,
    Server,
    holds,
    read_until,
    unchunked,
)
from tests.unit.tracking_api.live_world import NOON, frames_of, serving
from tracking_api.live.connection_manager import MAX_VIEWERS_PER_TOKEN
from tracking_api.track.links import COOKIE
from tracking_api.track.visibility import OtherDelivery

# What is shown


async def test_stream__order_under_way__starts_with_the_answer_of_get_track(server, world):
    order_id = world.create("picked_up", driver_id="d1")
    spot = world.fix("d1")
    async with server.follow(order_id) as stream:
        first = await stream.next()
    asked = (await server.get(f"/track/{order_id}", f"tok-{order_id}")).json()
    assert (first.kind, first.event_id, first.data) == ("snapshot", 3, asked)
    assert first.place == spot.lon_lat


async def test_stream__fix_and_event__are_sent_as_get_track_shows_them(server, world):
    order_id = world.create(driver_id="d1")
    async with server.follow(order_id) as stream:
        assert (await stream.next()).data["position"] is None
        world.tick()
        world.fix("d1")
        await server.poll()
        moved = await stream.next()
        asked = (await server.get(f"/track/{order_id}", f"tok-{order_id}")).json()
        assert moved.kind == "position"
        assert moved.event_id is None
        assert moved.data["position"] == asked["position"]
        world.move(order_id, "picked_up")
        await server.poll()
        event = await stream.next()
        asked = (await server.get(f"/track/{order_id}", f"tok-{order_id}")).json()
        assert (event.kind, event.event_id) == ("order", 3)
        assert event.data == {
            "order_id": str(order_id),
            "assignment_no": 1,
            **asked["events"][-1],
            "position": asked["position"],
            "eta": asked["eta"],
            "route": asked["route"],
            "other_delivery_first": False,
            "ended_reason": None,
        }


async def test_stream__another_delivery_comes_first__shows_two_instants_until_it_is_over(
    server, world, monkeypatch
):
    order_id = world.create("picked_up", driver_id="d1")
    async with server.follow(order_id) as stream:
        await stream.next()
        world.tick()
        world.fix("d1")
        await server.poll()
        assert (await stream.next()).place is not None
        world.tick()
        world.waits[order_id] = OtherDelivery(NOON, NOON + timedelta(minutes=20))
        world.fix("d1")
        await server.poll()
        hidden = await stream.next()
        asked = (await server.get(f"/track/{order_id}", f"tok-{order_id}")).json()
        assert (hidden.kind, hidden.place) == ("position", None)
        assert hidden.data["other_delivery_first"] is asked["other_delivery_first"] is True
        assert hidden.data["eta"] == asked["eta"]
        assert set(asked["eta"]) == {"earliest_at", "latest_at"}
        world.fix("d1")  # no longer followed
        await server.poll()
        del world.waits[order_id]
        world.tick()
        spot = world.fix("d1")
        monkeypatch.setattr("tracking_api.live.hub.MAX_POLL_INTERVAL_S", 0.0)  # as if idle for 4 s
        await server.poll()
        shown = await stream.next()
        assert shown.data["other_delivery_first"] is False
        assert shown.place == spot.lon_lat


async def test_stream__repeated_fix_and_event__send_nothing(server, world):
    order_id = world.create(driver_id="d1")
    async with server.follow(order_id) as stream:
        world.fix("d1")
        for _ in range(3):
            await server.poll()
            server.live.customers.order_changed(order_id, 2)
        world.fix("d1", ago_s=60)  # a late fix rewinds nothing
        await server.poll()
        world.move(order_id, "picked_up")
        await server.poll()
        assert await stream.kinds(3) == ["snapshot", "position", "order"]


async def test_stream__before_the_assignment__shows_no_driver_and_then_only_fixes_from_it_on(
    server, world
):
    order_id = world.create()
    world.fix("d1")
    async with server.follow(order_id) as stream:
        assert (await stream.next()).place is None
        world.tick(10)
        world.assign(order_id, "d1")
        await server.poll()
        assigned = await stream.next()
        assert (assigned.data["state"], assigned.place) == ("assigned", None)
        spot = world.fix("d1")
        await server.poll()
        assert (await stream.next()).place == spot.lon_lat


async def test_stream__driver_reassigned__never_shows_the_previous_drivers_next_order(
    server, world
):
    order_id = world.create(driver_id="d1")
    async with server.follow(order_id) as stream:
        assert await stream.kinds(1) == ["snapshot"]
        world.fix("d1")
        await server.poll()
        assert await stream.kinds(1) == ["position"]
        world.assign(order_id, "d2")
        next_id = world.create(driver_id="d1")
        async with server.follow(next_id) as next_stream:
            for _ in range(3):
                world.tick(4)
                world.fix("d1")
                server.live.customers.drivers_moved(["d1"])
                await server.poll()
            event = await stream.next()
            assert (event.kind, event.place) == ("order", None)
            theirs = world.fix("d2")
            await server.poll()
            assert (await stream.next()).place == theirs.lon_lat
            assert await next_stream.kinds(4) == ["snapshot", "position", "position", "position"]


async def test_stream__delivered__sends_the_event_and_the_end_and_closes(server, world):
    order_id = world.create("picked_up", driver_id="d1")
    world.fix("d1")
    async with server.follow(order_id) as stream:
        assert (await stream.next()).place
        world.move(order_id, "delivered")
        world.tick()
        world.fix("d1")
        await server.poll()
        event, end = await stream.next(), await stream.next()
        assert (event.data["state"], event.place, event.event_id) == ("delivered", None, 4)
        assert (end.kind, end.data, end.event_id) == ("end", {"reason": "delivered"}, None)
        assert await stream.next() is None
    await holds(lambda: len(server.live.connections) == 0)


async def test_stream__opened_after_the_end__sends_the_snapshot_and_the_end(server, world):
    order_id = world.create("picked_up", "delivered", driver_id="d1")
    async with server.follow(order_id) as stream:
        first = await stream.next()
        assert (first.data["state"], first.place) == ("delivered", None)
        assert await stream.kinds(2) == ["end", None]


async def test_stream__resumed_after_the_final_event__is_204(server, world):
    order_id = world.create("cancelled")
    path = f"/track/{order_id}/stream?last_event_id=2"
    assert (await server.get(path, f"tok-{order_id}")).status_code == 204


# Resuming


@pytest.mark.parametrize("by", ["header", "query"])
async def test_stream__resumed__sends_each_missed_event_once(server, world, by):
    order_id = world.create("confirmed", driver_id="d1")
    world.move(order_id, "picked_up")
    if by == "header":
        async with server.follow(order_id, cursor="2") as stream:
            frames = [await stream.next() for _ in range(3)]
    else:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
            address = f"/track/{order_id}/stream?last_event_id=2"
            headers = {"Authorization": f"Bearer tok-{order_id}"}
            async with client.stream("GET", address, headers=headers) as answer:
                stream = Reader(answer)
                frames = [await stream.next() for _ in range(3)]
    assert [(one.kind, one.event_id) for one in frames] == [
        ("snapshot", None),  # the cursor stays where it was until the events are told
        ("order", 3),
        ("order", 4),
    ]


async def test_stream__cursor_of_the_newest_event__sends_later_events_only(server, world):
    order_id = world.create("confirmed")
    async with server.follow(order_id, cursor="2") as stream:
        first = await stream.next()
        assert (first.kind, first.event_id) == ("snapshot", None)
        world.move(order_id, "cancelled")
        await server.poll()
        assert (await stream.next()).event_id == 3


@pytest.mark.parametrize("cursor", ["99", "x", "-1", "1e9", "٣", "999999999999999999999"])
async def test_stream__invalid_cursor__sends_one_resync_and_a_snapshot(server, world, cursor):
    order_id = world.create("confirmed")
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
        headers = {"Authorization": f"Bearer tok-{order_id}"}
        address = f"/track/{order_id}/stream"
        async with client.stream(
            "GET", address, params={"last_event_id": cursor}, headers=headers
        ) as answer:
            stream = Reader(answer)
            frames = [await stream.next(), await stream.next()]
            world.move(order_id, "cancelled")
            await server.poll()
            frames.append(await stream.next())
    assert [(one.kind, one.event_id) for one in frames] == [
        ("resync", None),
        ("snapshot", 2),
        ("order", 3),
    ]


async def test_stream__cursor_too_old__sends_one_resync_and_a_snapshot(server, world):
    order_id = world.create(*["confirmed"] * 60)
    async with server.follow(order_id, cursor="1") as stream:
        assert await stream.kinds(2) == ["resync", "snapshot"]


async def test_stream__concurrent_viewers__share_reads(server, world):
    order_id = world.create(driver_id="d1")
    world.reads = world.polls = 0
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
        headers = {"Authorization": f"Bearer tok-{order_id}"}
        requests = [
            client.build_request("GET", f"/track/{order_id}/stream", headers=headers)
            for _ in range(40)
        ]
        answers = await asyncio.gather(*(client.send(one, stream=True) for one in requests))
        streams = [Reader(one) for one in answers]
        assert {(await one.next()).kind for one in streams} == {"snapshot"}
        reads = world.reads
        world.fix("d1")
        await server.poll()
        assert {(await one.next()).kind for one in streams} == {"position"}
        assert world.reads == reads  # for any number of viewers
        for answer in answers:
            await answer.aclose()
    await holds(lambda: not server.live.customers.watched_drivers)


# Who may look


async def test_stream__any_bad_link__is_the_same_404_as_get_track(server, world):
    order_id, other_id = world.create(), world.create()
    bodies = []
    for path, token in [
        (f"/track/{order_id}", "tok-forged"),
        (f"/track/{order_id}/stream", "tok-forged"),
        (f"/track/{order_id}/ws", "tok-forged"),
        (f"/track/{order_id}/stream", f"tok-{other_id}"),
        (f"/track/{uuid4()}/stream", f"tok-{other_id}"),
        (f"/track/{uuid4()}/stream", "tok-staff"),
        ("/track/nonsense/stream", f"tok-{order_id}"),
    ]:
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        headers = {"Authorization": f"Bearer {token}"} | (upgrade if path.endswith("ws") else {})
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
            answer = await client.get(path, headers=headers)
        assert answer.status_code == 404, path
        bodies.append(answer.content)
    assert len(set(bodies)) == 1


async def test_stream__token_revoked__ends_with_the_next_heartbeat(server, world):
    order_id, other_id = world.create(driver_id="d1"), world.create()
    async with server.follow(order_id) as stream, server.follow(other_id) as other:
        assert await stream.kinds(1) == ["snapshot"]
        del world.tokens[token_sha256(f"tok-{order_id}")]
        for _ in range(5):  # one a second: a token is checked every 5 s
            await server.live.connections.maintain_next_bucket()
        end = await stream.next()
        assert (end.kind, end.data) == ("end", {"reason": "link_ended"})
        assert await stream.next() is None
        assert await other.kinds(1) == ["snapshot"]
        world.move(other_id, "confirmed")
        await server.poll()
        assert await other.kinds(1) == ["order"]


async def test_stream__token_expired__is_the_same_404(server, world):
    order_id = world.create("cancelled")
    del world.tokens[token_sha256(f"tok-{order_id}")]  # find_token_v2 decides when
    answer = await server.get(f"/track/{order_id}/stream", f"tok-{order_id}")
    assert answer.status_code == 404


async def test_stream__cookie__is_accepted_and_a_token_in_the_query_is_not(server, world):
    order_id = world.create()
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
        path = f"/track/{order_id}/stream"
        cookie = {"Cookie": f"{COOKIE}=tok-{order_id}"}
        async with client.stream("GET", path, headers=cookie) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert answer.headers["cache-control"] == "no-store"
        assert (await client.get(f"{path}?token=tok-{order_id}")).status_code == 404


async def test_stream__process_at_its_maximum__is_503_with_retry_after(world):
    order_id = world.create()
    async with serving(world) as (url, app):
        app.state.context.live.connections._max_viewers = 1
        server = Server(world, url, app.state.context.live)
        async with server.follow(order_id) as stream:
            assert await stream.kinds(1) == ["snapshot"]
            answer = await server.get(f"/track/{order_id}/stream", f"tok-{order_id}")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_stream__token_at_its_maximum__is_429_and_other_tokens_are_accepted(server, world):
    order_id, other_id = world.create(), world.create()
    token = token_sha256(f"tok-{order_id}")
    server.live.connections._viewers_by_token[token] = MAX_VIEWERS_PER_TOKEN
    answer = await server.get(f"/track/{order_id}/stream", f"tok-{order_id}")
    assert answer.status_code == 429
    async with server.follow(other_id) as stream:
        assert await stream.kinds(1) == ["snapshot"]


async def test_stream__database_unavailable__is_503_and_open_streams_catch_up(server, world):
    order_id = world.create(driver_id="d1")
    async with server.follow(order_id) as stream:
        assert await stream.kinds(1) == ["snapshot"]
        world.away = True
        answer = await server.get(f"/track/{order_id}/stream", f"tok-{order_id}")
        assert answer.status_code == 503
        world.fix("d1")
        world.move(order_id, "picked_up")
        server.live.customers.drivers_moved(["d1"])
        world.away = False  # within 5 s the hub looks by itself
        assert await stream.kinds(1) == ["order"]


# Slow, silent and vanished viewers


async def test_stream__viewer_that_reads_nothing__gets_only_the_latest_position_and_every_event(
    server, world
):
    order_id = world.create(driver_id="d1")
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        request = f"GET /track/{order_id}/stream HTTP/1.1\r\nHost: x\r\n"
        slow.sendall(f"{request}Authorization: Bearer tok-{order_id}\r\n\r\n".encode())
        await holds(lambda: len(server.live.connections) == 1)
        async with server.follow(order_id) as stream:
            assert await stream.kinds(1) == ["snapshot"]
            shown = 0
            while not server.live.connections._paused_since:
                world.tick()
                spot = world.fix("d1")
                await server.poll()
                shown += 1
                assert (await stream.next()).place == spot.lon_lat
                assert shown < 5000
            for _ in range(50):
                world.tick()
                spot = world.fix("d1")
                await server.poll()
                assert (await stream.next()).place == spot.lon_lat
            world.move(order_id, "picked_up")
            await server.poll()
            assert (await stream.next()).kind == "order"
            slow.setblocking(False)
            answer = await read_until(slow, b'"order_seq":3')
            frames = list(frames_of(unchunked(answer)))
            assert [one.event_id for one in frames if one.event_id] == [2, 3]  # no event is skipped
            places = [one.place for one in frames]
            assert len(places) < shown + 50  # and positions are
            assert places[-1] == spot.lon_lat


async def test_readiness__without_kafka__is_ready_and_reports_it(server):
    answer = await server.get("/readyz", "none")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "database": True, "kafka": False, "clock": True}


async def test_stream__staff_token__follows_any_order(server, world):
    order_id = world.create()
    assert world.tokens[token_sha256("tok-staff")] == Token("staff", None, None, "anna", "admin")
    async with server.follow(order_id, token="tok-staff") as stream:
        assert await stream.kinds(1) == ["snapshot"]
