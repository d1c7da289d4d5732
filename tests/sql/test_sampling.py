"""How devices report: what staff sets, and what waits for a broker."""

from __future__ import annotations

from uuid import UUID

import pytest

from doorstep import errors
from doorstep.sampling import SamplingPolicy
from doorstep.store import commands, fix_writer
from doorstep.store.pool import connection, open_pool
from tests.database import Database
from tests.sql.fleet import Fleet, connect_as


async def set_reporting(database: Database, driver_id: str, report: SamplingPolicy) -> None:
    pool = await open_pool(database.url("tracking_api"), 1)
    try:
        async with connection(pool) as conn:
            await commands.set_reporting(conn, driver_id, report)
    finally:
        await pool.close()


async def test_set_reporting__twice__only_the_newest_waits(
    fleet: Fleet, database: Database
) -> None:
    newest = SamplingPolicy(mode="dead_reckoning", batch_s=20)
    await set_reporting(database, "d1", SamplingPolicy(mode="time"))
    await set_reporting(database, "d1", newest)
    with connect_as(database, "driver_events") as conn:
        assert fix_writer.take_reporting(conn, 10) == [("d1", 2, newest)]


async def test_confirm_reporting__of_an_older_version__leaves_the_newer_waiting(
    fleet: Fleet, database: Database
) -> None:
    await set_reporting(database, "d1", SamplingPolicy(mode="time"))
    with connect_as(database, "driver_events") as conn:
        ((driver_id, version, _),) = fix_writer.take_reporting(conn, 10)
        await set_reporting(database, "d1", SamplingPolicy(mode="distance"))
        fix_writer.confirm_reporting(conn, [(driver_id, version)])
        assert fix_writer.take_reporting(conn, 10) == [("d1", 2, SamplingPolicy(mode="distance"))]
        fix_writer.confirm_reporting(conn, [("d1", 2)])
        assert fix_writer.take_reporting(conn, 10) == []
        fix_writer.renew_reporting(conn)
        assert [row[0] for row in fix_writer.take_reporting(conn, 10)] == ["d1"]


async def test_take_reporting__two_publishers__only_one_gets_any(
    fleet: Fleet, database: Database
) -> None:
    await set_reporting(database, "d1", SamplingPolicy(mode="time"))
    with (
        database.connect("driver_events") as first,
        database.connect("driver_events") as second,
    ):
        assert len(fix_writer.take_reporting(first, 10)) == 1
        assert fix_writer.take_reporting(second, 10) == []


async def test_set_reporting__unknown_driver__is_told(fleet: Fleet, database: Database) -> None:
    with pytest.raises(errors.UnknownDriver):
        await set_reporting(database, "unknown-driver", SamplingPolicy())


def policy_of(demand: str) -> SamplingPolicy:
    """The seeded policies."""
    return {
        "idle": SamplingPolicy(mode="dead_reckoning", off_by_m=25, heartbeat_s=30, keep_every_s=0),
        "on_order": SamplingPolicy(batch_s=16),
        "live": SamplingPolicy(),
    }[demand]


def follow(database: Database, *, everybody: bool = True) -> int:
    with connect_as(database, "driver_events") as conn:
        changed = fix_writer.follow_demand(conn, everybody=everybody)
        conn.commit()
        return changed


def demand_of(fleet: Fleet, driver_id: str = "d1") -> str | None:
    rows = fleet.run("SELECT demand::text FROM driver_sampling WHERE driver_id = %s", driver_id)
    found: str | None = rows[0]["demand"] if rows else None
    return found


def watch(database: Database, order_id: UUID, token_sha256: bytes) -> None:
    with connect_as(database, "customer") as conn:
        conn.execute("SELECT customer_watch_v1(%s, %s)", ([token_sha256], [order_id]))
        conn.commit()


def test_follow_demand__from_assignment_to_the_end__each_policy_is_sent(
    fleet: Fleet, database: Database
) -> None:
    token = b"t" * 32
    taken = []

    def take() -> None:
        follow(database)
        with connect_as(database, "driver_events") as conn:
            waiting = fix_writer.take_reporting(conn, 10)
            fix_writer.confirm_reporting(conn, [one[:2] for one in waiting])
            conn.commit()
        taken.append([policy for driver_id, _, policy in waiting if driver_id == "d1"])

    take()
    order_id = fleet.assigned_order(token_sha256=token)
    take()
    watch(database, order_id, token)
    take()
    take()  # unchanged
    fleet.run("UPDATE order_watch SET watched_until = clock_timestamp()")
    take()
    fleet.command_order(order_id, "cancel")
    take()
    assert taken == [
        [policy_of("idle")],
        [policy_of("on_order")],
        [policy_of("live")],
        [],
        [policy_of("on_order")],
        [policy_of("idle")],
    ]


def test_follow_demand__near_the_door_and_unwatched__is_live(
    fleet: Fleet, database: Database
) -> None:
    order_id = fleet.assigned_order()
    fleet.run("UPDATE assignment SET arriving_at = now() WHERE order_id = %s", order_id)
    follow(database)
    assert demand_of(fleet) == "live"


async def test_follow_demand__pinned_by_staff__stays_until_unpinned(
    fleet: Fleet, database: Database
) -> None:
    pinned = SamplingPolicy(mode="distance")
    await set_reporting(database, "d1", pinned)
    fleet.assigned_order()
    assert follow(database, everybody=False) == 0
    assert demand_of(fleet) is None
    pool = await open_pool(database.url("tracking_api"), 1)
    async with connection(pool) as conn:
        await commands.unpin_sampling(conn, "d1")
    with pytest.raises(errors.UnknownDriver):
        async with connection(pool) as conn:
            await commands.unpin_sampling(conn, "missing")
    await pool.close()
    follow(database, everybody=False)
    assert demand_of(fleet) == "on_order"


def test_customer_watch__a_bad_token_or_an_ended_order__changes_nothing(
    fleet: Fleet, database: Database
) -> None:
    order_id = fleet.assigned_order(token_sha256=b"t" * 32)
    watch(database, order_id, b"x" * 32)
    fleet.command_order(order_id, "cancel")
    watch(database, order_id, b"t" * 32)
    assert fleet.run("SELECT * FROM order_watch") == []


def test_follow_demand__two_processes__only_one_chooses(fleet: Fleet, database: Database) -> None:
    fleet.assigned_order()
    with (
        database.connect("driver_events") as first,
        database.connect("driver_events") as second,
    ):
        assert fix_writer.follow_demand(first, everybody=True) >= 1
        assert fix_writer.follow_demand(second, everybody=True) == 0
