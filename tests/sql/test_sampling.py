"""How devices report: what staff sets, and what waits for a broker."""

from __future__ import annotations

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
        await set_reporting(database, "nobody", SamplingPolicy())
