"""What the database tells through a link that a customer shares, and how many it keeps."""

from __future__ import annotations

import json
import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from doorstep.store.pool import open_pool
from tests.database import Database
from tests.factories import make_fix, now, numbered
from tests.sql.fleet import Fleet, connect_as
from tests.sql.test_order_ends import create
from tracking_api.track.customer_queries import CustomerQueries
from tracking_api.track.order_details import DetailsCache
from tracking_api.track.visibility import TrackLink

OWN, SHARED = b"o" * 32, b"s" * 32
TRACKS = {
    "v1": "SELECT details FROM share_tracks_v1(%s, %s, NULL, NULL, NULL)",
    "v2": "SELECT details, stamp FROM share_tracks_v2(%s, %s, NULL, NULL, NULL, NULL)",
}
NOTE = "Ring at Zanobini"


@pytest.fixture
def order_id(fleet: Fleet) -> UUID:
    """An order under way with a PIN and a note, whose customer shares it."""
    created = create(fleet, pin="4711", door_note=NOTE, token=OWN)
    with connect_as(fleet.database, "customer") as conn:
        conn.execute("SELECT customer_share_v1(%s, %s, %s)", [OWN, created, SHARED])
    fleet.command_order(created, "confirm")
    fleet.command_order(created, "assign", driver_id="d1")
    fleet.backdate_assignment(created, now() - timedelta(minutes=10))
    fleet.record(numbered([make_fix(seq=1, fix_at=now() - timedelta(seconds=5))]))
    return created


def shared(fleet: Fleet, order_id: UUID, version: str) -> tuple[Any, ...]:
    with connect_as(fleet.database, "customer") as conn:
        [row] = conn.execute(TRACKS[version], [[SHARED], [order_id]]).fetchall()
    return row


@pytest.mark.parametrize("version", TRACKS)
@pytest.mark.parametrize("end", [None, "deliver", "cancel"])
def test_share__as_the_role_customer__tells_no_pin_note_reason_or_photo(
    fleet: Fleet, order_id: UUID, version: str, end: str | None
) -> None:
    if end == "deliver":
        fleet.command_order(order_id, "pick_up")
        fleet.run(
            "INSERT INTO order_photo VALUES (%s, 'd1', now(), 'image/jpeg', %s)", order_id, b"x"
        )
    if end is not None:
        fleet.run(
            "SELECT end_order_as_staff_v1(%s, %s, 'anna', 'The oven is broken.', NULL)",
            order_id,
            end,
        )
    details = shared(fleet, order_id, version)[0]
    assert json.loads(details)[13] == {}
    for secret in ("4711", NOTE, "oven", "photo"):
        assert secret not in details
    assert json.loads(details)[:3] == json.loads(own_details(fleet, order_id))[:3]


def own_details(fleet: Fleet, order_id: UUID) -> str:
    with connect_as(fleet.database, "customer") as conn:
        [row] = conn.execute(
            "SELECT details FROM customer_tracks_v3(%s, %s, NULL, NULL, NULL, NULL)",
            [[OWN], [order_id]],
        ).fetchall()
    return str(row[0])


async def test_read_tracks__through_a_share_before_the_customer__takes_no_pin_from_the_customer(
    fleet: Fleet, order_id: UUID, database: Database
) -> None:
    pool = await open_pool(database.url("customer"), 1, autocommit=True)
    try:
        store = CustomerQueries(pool, DetailsCache())
        own, share = TrackLink(order_id, OWN), TrackLink(order_id, SHARED)
        pins = [
            (await store.read_tracks([link], lambda _: None))[link].pin
            for link in (share, own, share, own)
        ]
    finally:
        await pool.close()
    assert pins == [None, "4711", None, "4711"]


def test_share__made_and_withdrawn_often__leaves_one_link_at_most(
    fleet: Fleet, order_id: UUID
) -> None:
    with connect_as(fleet.database, "customer") as conn:
        for _ in range(5):
            token = secrets.token_bytes(32)
            conn.execute("SELECT customer_share_v1(%s, %s, %s)", [OWN, order_id, token])
        assert fleet.run("SELECT token_sha256 FROM share_link") == [{"token_sha256": token}]
        conn.execute("SELECT customer_unshare_v1(%s, %s)", [OWN, order_id])
    assert fleet.run("SELECT FROM share_link") == []
