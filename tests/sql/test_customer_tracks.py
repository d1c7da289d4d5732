"""What GET /track keeps between requests never outlives what may be shown."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest

from doorstep.store.pool import open_pool
from tests.database import Database
from tests.factories import AWAY, RESTAURANT, make_fix, now, numbered
from tests.sql.fleet import Fleet
from tracking_api.track.customer_queries import CustomerQueries
from tracking_api.track.order_details import DetailsCache
from tracking_api.track.visibility import EstimateKey, TrackedOrder, TrackLink


class Reader:
    """Reads one link as GET /track does, with an estimate for whatever was read last."""

    def __init__(self, store: CustomerQueries, link: TrackLink) -> None:
        self._store, self._link = store, link
        self._held: EstimateKey | None = None

    def held(self, order_id: UUID) -> EstimateKey | None:
        assert order_id == self._link.order_id
        return self._held

    async def read(self) -> TrackedOrder | None:
        found = (await self._store.read_tracks([self._link], self.held)).get(self._link)
        if found is not None and found.position is not None:
            self._held = EstimateKey(found.order_seq, found.position.fix_at)
        return found


@asynccontextmanager
async def reader_of(
    database: Database, link: TrackLink, details: DetailsCache | None = None
) -> AsyncIterator[Reader]:
    pool = await open_pool(database.url("customer"), 1, autocommit=True)
    try:
        yield Reader(CustomerQueries(pool, details or DetailsCache()), link)
    finally:
        await pool.close()


@pytest.fixture
def link(fleet: Fleet) -> TrackLink:
    """The link of an order of d1, assigned ten minutes ago, with three fixes."""
    token = secrets.token_bytes(32)
    order_id = fleet.assigned_order("d1", token_sha256=token)
    start_at = now() - timedelta(minutes=10)
    fleet.backdate_assignment(order_id, start_at)
    fleet.record(
        numbered([make_fix(seq=n, fix_at=now() - timedelta(seconds=60 - n)) for n in (1, 2, 3)])
    )
    return TrackLink(order_id, token)


async def test_read_tracks__again__keeps_details_and_omits_the_trail(
    database: Database, link: TrackLink
) -> None:
    async with reader_of(database, link) as reader:
        first, second = await reader.read(), await reader.read()
    assert first is not None
    assert second is not None
    assert (len(first.trail), first.is_trail_omitted) == (2, False)
    assert (second.trail, second.is_trail_omitted) == ([], True)
    assert second.events is first.events
    assert (second.state, second.position) == (first.state, first.position)


async def test_read_tracks__new_fix__is_shown_at_once_with_its_trail(
    database: Database, fleet: Fleet, link: TrackLink
) -> None:
    async with reader_of(database, link) as reader:
        await reader.read()
        fix_at = now() - timedelta(seconds=10)
        fleet.record(numbered([make_fix(seq=4, fix_at=fix_at, place=RESTAURANT)]))
        found = await reader.read()
    assert found is not None
    assert found.position is not None
    assert found.position.lon_lat == RESTAURANT
    assert [one.lon_lat for one in found.trail] == [AWAY] * 3


async def test_read_tracks__new_event__is_shown_at_once(
    database: Database, fleet: Fleet, link: TrackLink
) -> None:
    async with reader_of(database, link) as reader:
        await reader.read()
        fleet.command_order(link.order_id, "pick_up")
        found = await reader.read()
    assert found is not None
    assert (found.state, found.events[-1].state) == ("picked_up", "picked_up")


async def test_read_tracks__window_has_ended__shows_no_position_at_once(
    database: Database, fleet: Fleet, link: TrackLink
) -> None:
    async with reader_of(database, link) as reader:
        assert (await reader.read()) is not None
        fleet.command_order(link.order_id, "cancel")
        found = await reader.read()
    assert found is not None
    assert (found.state, found.position, found.trail) == ("cancelled", None, [])


async def test_read_tracks__revoked_link__shows_nothing_at_once(
    database: Database, fleet: Fleet, link: TrackLink
) -> None:
    async with reader_of(database, link) as reader:
        await reader.read()
        fleet.run("SELECT revoke_customer_tokens_v1(%s)", link.order_id)
        assert await reader.read() is None


EARLIER_ARRIVAL = """
UPDATE evidence SET occurred_at = occurred_at - interval '1 minute' WHERE order_id = %(order_id)s
"""
PROOF = """
INSERT INTO evidence (order_id, assignment_no, state, occurred_at)
SELECT order_id, assignment_no, state, occurred_at FROM order_event
WHERE order_id = %(order_id)s AND state = 'picked_up'
"""
AS_PROVED = "UPDATE order_event SET source = 'gps' WHERE order_id = %(order_id)s"
SILENT_CHANGES = {
    "evidence of an earlier instant": EARLIER_ARRIVAL,
    "a restaurant's new name": "UPDATE restaurant SET name = 'Trattoria nuova'",
    "a scheduled time": """
        INSERT INTO order_detail (order_id, created_by, search, scheduled_for)
        VALUES (%(order_id)s, '', '', now() + interval '1 h')""",
}


@pytest.mark.parametrize("change", SILENT_CHANGES)
async def test_read_tracks__a_change_without_an_event__is_shown_after_four_seconds(
    database: Database, fleet: Fleet, link: TrackLink, change: str
) -> None:
    clock_s = 0.0
    fleet.command_order(link.order_id, "pick_up")
    of_order = {"order_id": link.order_id}
    for statement in (AS_PROVED, PROOF):
        fleet.conn.execute(statement, of_order)
    async with reader_of(database, link, DetailsCache(clock=lambda: clock_s)) as reader:
        first = await reader.read()
        clock_s = 4.1
        compared = await reader.read()
        fleet.conn.execute(SILENT_CHANGES[change], of_order)
        clock_s = 8.0
        kept = await reader.read()
        clock_s = 8.3
        read_again = await reader.read()
    assert first is not None
    assert compared is not None
    assert kept is not None
    assert read_again is not None
    assert compared.events is first.events  # not read again
    shown = [(one.events, one.restaurant_name, one.plan) for one in (first, kept, read_again)]
    assert shown[0] == shown[1]
    assert shown[1] != shown[2]


async def test_read_tracks__photo_of_a_delivered_order__is_shown_after_four_seconds(
    database: Database, fleet: Fleet, link: TrackLink
) -> None:
    clock_s = 0.0
    fleet.command_order(link.order_id, "pick_up")
    fleet.command_order(link.order_id, "deliver")
    async with reader_of(database, link, DetailsCache(clock=lambda: clock_s)) as reader:
        first = await reader.read()
        fleet.run(
            "INSERT INTO order_photo (order_id, driver_id, stored_at, media_type, content)"
            " VALUES (%s, 'd1', now(), 'image/jpeg', 'x')",
            link.order_id,
        )
        clock_s = 4.1
        read_again = await reader.read()
    assert first is not None
    assert read_again is not None
    assert (first.has_photo, read_again.has_photo) == (False, True)
