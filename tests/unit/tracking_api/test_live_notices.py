"""Notices in streams over real connections; the seam is the database (`World`)."""

from __future__ import annotations


async def test_stream__notice__is_sent_once_with_what_get_track_shows(server, world):
    order_id = world.create("picked_up", driver_id="d1")
    world.fix("d1")
    async with server.follow(order_id) as stream:
        assert (await stream.next()).data["nearby_at"] is None
        for kind in ("nearby", "late"):
            world.tick(1)
            world.notice(order_id, kind)
            for _ in range(2):
                await server.poll()
        frames = [await stream.next() for _ in range(2)]
        world.move(order_id, "arriving")
        await server.poll()
        event = await stream.next()
        asked = (await server.get(f"/track/{order_id}", f"tok-{order_id}")).json()
    assert [(one.kind, one.event_id) for one in [*frames, event]] == [
        ("notice", 4),
        ("notice", 5),
        ("order", 6),
    ]
    assert [one.data["notice"] for one in frames] == ["nearby", "late"]
    assert frames[1].data["late_by_s"] == asked["late_by_s"] == 0
    assert frames[0].data["nearby_at"] == asked["nearby_at"] is not None
    assert event.data["position"] == asked["position"] is not None


async def test_stream__resumed_after_an_event__replays_notices_in_their_place(server, world):
    order_id = world.create(driver_id="d1")
    world.notice(order_id, "late")
    world.move(order_id, "picked_up")
    world.notice(order_id, "nearby")
    async with server.follow(order_id, "2") as stream:
        frames = [await stream.next() for _ in range(4)]
    assert [(one.kind, one.event_id) for one in frames] == [
        ("snapshot", None),
        ("notice", 3),
        ("order", 4),
        ("notice", 5),
    ]
