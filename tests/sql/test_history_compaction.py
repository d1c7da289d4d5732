"""The history at rest: packed days read as before, whatever happens while they are packed."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doorstep.kafka.topic_specs import TOPICS
from doorstep.store.compaction import Compacted
from ops.commands.trace import InHistory
from ops.ledger import _read_boots
from sql import read_sql
from tests.database import Database
from tests.factories import make_fix
from tests.sql.fleet import Fleet
from tests.sql.packed_days import (
    DAY,
    MAX_SEQ,
    MIDNIGHT,
    ROUND_TRIP,
    SECOND,
    Row,
    compact,
    held_by,
    is_about,
    old_fix,
    put,
    put_by_default,
    read,
)
from tracking_api.stores import open_stores

# -- the code -----------------------------------------------------------------------------------

instants = st.one_of(
    st.integers(0, 86_399_999).map(lambda ms: MIDNIGHT + timedelta(milliseconds=ms)),
    st.integers(0, 86_399_999_999).map(lambda us: MIDNIGHT + timedelta(microseconds=us)),
    st.sampled_from([MIDNIGHT, MIDNIGHT + timedelta(hours=24, microseconds=-1)]),
)
fixes = st.builds(
    lambda fix_at, late_ms, **values: old_fix(
        0, fix_at=fix_at, received_at=fix_at + timedelta(milliseconds=late_ms), **values
    ),
    fix_at=instants,
    late_ms=st.integers(-120_000, 86_400_000),
    boot=st.sampled_from(["", "b1", "b2", "é-boot"]),
    seq=st.one_of(st.integers(1, 40), st.integers(0, 2**63 - 1), st.just(MAX_SEQ)),
    lon_deg=st.one_of(st.floats(-180, 180), st.sampled_from([-180.0, 180.0, -0.0, 179.9999999])),
    lat_deg=st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 90.0, 89.99999999])),
    accuracy_m=st.one_of(st.none(), st.floats(0, 1_000_000), st.just(0.0)),
    speed_mps=st.one_of(st.none(), st.floats(0, 500)),
    heading_deg=st.one_of(st.none(), st.floats(0, 360, exclude_max=True)),
    quarantine=st.sampled_from([None, None, "inaccurate", "swapped"]),
    battery=st.one_of(st.none(), st.floats(0, 1), st.just(1.0)),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(fixes, min_size=1, max_size=40, unique_by=lambda row: row[:3]))
def test_chunks__any_fixes_of_a_day__unpack_to_what_they_were(
    fleet: Fleet, rows: list[Row]
) -> None:
    with fleet.conn.transaction(force_rollback=True):
        put_by_default(fleet, rows)
        found = fleet.conn.execute(ROUND_TRIP, [MIDNIGHT]).fetchall()
    expected = sorted(rows, key=lambda row: row[:3])
    assert len(found) == len(expected)
    assert all(is_about(packed, row) for packed, row in zip(found, expected, strict=True))


def test_chunks__places_to_seven_decimals_and_ms__come_back_exactly(fleet: Fleet) -> None:
    rows = [
        old_fix(n, lon_deg=round(11.2 + n / 997, 7), lat_deg=round(43.7 - n / 1009, 7))
        for n in range(300)
    ]
    with fleet.conn.transaction(force_rollback=True):
        put_by_default(fleet, rows)
        assert [row[:6] for row in fleet.conn.execute(ROUND_TRIP, [MIDNIGHT])] == [
            (*row[:3], row[0] + timedelta(milliseconds=300), *row[4:6]) for row in rows
        ]


# -- a day's way ----------------------------------------------------------------------------------


def test_compact__a_day_of_long_ago__is_read_as_before_and_its_partition_is_gone(
    fleet: Fleet, database: Database
) -> None:
    rows = [old_fix(n, quarantine="inaccurate" if n % 400 == 7 else None) for n in range(4300)]
    rows += [old_fix(n, boot="b2", seq=9000 - n) for n in range(40)]  # same instants, backwards
    put(fleet, rows)
    put(fleet, [old_fix(n) for n in range(50)], "d2")
    before, others = read(fleet), read(fleet, "d2")
    done = compact(database, role="driver_events")
    assert (done.days, done.fixes, done.still_there) == (1, 4390, 0)
    assert fleet.history() == []
    assert database.value("SELECT to_regclass(%s)", f"fix_history_{DAY:%Y%m%d}") is None
    after = read(fleet)
    assert len(after) == len(before) == 4340
    assert all(is_about(packed, row) for packed, row in zip(after, before, strict=True))
    assert [row[:3] for row in read(fleet, "d2")] == [row[:3] for row in others]
    assert compact(database) == Compacted()


def test_compact__fixes_in_the_default_partition__are_packed_too(
    fleet: Fleet, database: Database
) -> None:
    put_by_default(fleet, [old_fix(n) for n in range(3)])
    assert compact(database).fixes == 3
    assert fleet.history() == []
    assert len(read(fleet)) == 3


def test_compact__a_sealed_fix_again__is_counted_never_stored(
    fleet: Fleet, database: Database
) -> None:
    arrived = MIDNIGHT + timedelta(hours=9, seconds=1)
    known = make_fix(fix_at=MIDNIGHT + timedelta(hours=9), received_at=arrived)
    put(fleet, [old_fix(0, fix_at=MIDNIGHT + timedelta(hours=9))])
    fleet.run("SELECT boot_seqs__replace('d1', 'b1', '{[1,2)}', '{}')")
    compact(database)
    assert [one.outcome for one in fleet.record([known])] == ["duplicate"]
    new = make_fix(seq=2, fix_at=MIDNIGHT + timedelta(hours=9), received_at=arrived)
    assert [(one.outcome, one.reason) for one in fleet.record([new])] == [("rejected", "sealed")]
    assert len(read(fleet)) == 1


def test_compact__other_readers__see_packed_fixes_alike(fleet: Fleet, database: Database) -> None:
    put(fleet, [old_fix(n, quarantine="swapped" if n == 3 else None) for n in range(8)])
    fleet.run("SELECT boot_seqs__replace('d1', 'b1', '{[1,9)}', '{}')")
    asked = {"driver_id": "d1", "boot": "b1", "seq": 4}
    with fleet.conn.cursor() as cursor:
        before = InHistory(*cursor.execute(read_sql("trace/history.sql"), asked).fetchall()[0])
        stored = _read_boots(fleet.conn, ["d1"])
        compact(database)
        [row] = cursor.execute(read_sql("trace/history.sql"), asked).fetchall()
    after = InHistory(*row)
    assert (after.fix_at, after.quarantine) == (before.fix_at, "swapped")
    assert after.recorded_at is None
    assert _read_boots(fleet.conn, ["d1"]) == stored


async def test_history_of_an_order__packed__is_what_it_was(
    fleet: Fleet, database: Database
) -> None:
    order_id = ended_order(fleet)
    put(fleet, [old_fix(n, quarantine="swapped" if n == 5 else None) for n in range(1200)])
    since = MIDNIGHT + timedelta(hours=9, minutes=30)
    async with open_stores(database.url("tracking_api"), database.url("customer"), 1) as stores:
        read = partial(stores.history.read_order_history, limit=5000)
        before = await read(order_id, None, None)
        late = await read(order_id, since, None)
        compact(database)
        assert await read(order_id, None, None) == before
        assert await read(order_id, since, None) == late
    assert before is not None
    assert late is not None
    assert (len(before), len(late)) == (899, 450)


def test_fleet_history__packed__has_a_place_for_every_step_as_before(
    fleet: Fleet, database: Database
) -> None:
    put(fleet, [old_fix(n) for n in range(1500)])
    put(fleet, [old_fix(7)], "d2")
    asked = (["d1", "d2"], MIDNIGHT + timedelta(hours=9), MIDNIGHT + timedelta(hours=10), 60.0)
    steps = (
        "SELECT driver_id, floor(extract(epoch FROM fix_at - %s) / 60)::int AS step, lon_deg"
        " FROM fleet_history_v1(%s, %s, %s, %s)"
    )
    before = fleet.run(steps, asked[1], *asked)
    assert len(before) == 61
    compact(database)
    after = fleet.run(steps, asked[1], *asked)
    assert [(row["driver_id"], row["step"]) for row in after] == [
        (row["driver_id"], row["step"]) for row in before
    ]
    known = {row[4] for row in read(fleet)}
    assert all(row["lon_deg"] in known for row in after)


async def test_pages_of_the_past__across_packed_and_plain_days__join_without_a_seam(
    fleet: Fleet, database: Database
) -> None:
    put(fleet, [old_fix(n) for n in range(300)])
    compact(database)
    recent = MIDNIGHT + timedelta(days=9)
    put_by_default(fleet, [old_fix(300 + n, fix_at=recent + n * SECOND) for n in range(40)])
    until = recent + 99 * SECOND
    seqs: list[int] = []
    after = None
    async with open_stores(database.url("tracking_api"), database.url("customer"), 1) as stores:
        while page := await stores.history.read_driver_history("d1", MIDNIGHT, until, 70, after):
            seqs += [one.key.seq for one in page]
            after = page[-1].key
    assert seqs == list(range(1, 341))


def ended_order(fleet: Fleet) -> UUID:
    """An order of d1, under way from 9 to 10 o'clock on DAY."""
    order_id = fleet.assigned_order("d1")
    fleet.command_order(order_id, "cancel")
    fleet.run(
        "UPDATE assignment SET assigned_at = %s, ended_at = %s WHERE order_id = %s",
        MIDNIGHT + timedelta(hours=9),
        MIDNIGHT + timedelta(hours=10),
        order_id,
    )
    return order_id


# -- what is in the way ---------------------------------------------------------------------------


@pytest.fixture
def one_old_fix(fleet: Fleet) -> Fleet:
    put(fleet, [old_fix(0)])
    return fleet


def test_compact__an_order_open_since_then__keeps_its_day(
    one_old_fix: Fleet, database: Database
) -> None:
    order_id = one_old_fix.assigned_order("d1")
    one_old_fix.backdate_assignment(order_id, MIDNIGHT + timedelta(hours=23))
    assert held_by(database) == f"order {order_id}"
    assert compact(database) == Compacted()
    one_old_fix.command_order(order_id, "cancel")  # ended just now: late fixes of it may come
    assert held_by(database) == f"order {order_id}"
    assert len(one_old_fix.history()) == 1


def test_compact__a_parked_fix_of_then__keeps_its_day(
    one_old_fix: Fleet, database: Database
) -> None:
    one_old_fix.run("INSERT INTO parked_fix (driver_id, fix_at) VALUES ('d2', %s)", MIDNIGHT)
    assert held_by(database) == "parked"


def test_compact__what_arrived_then_is_not_read_yet__keeps_its_day(
    one_old_fix: Fleet, database: Database
) -> None:
    assert held_by(database, unread=MIDNIGHT + timedelta(hours=30)) == "unread"
    assert compact(database, unread=MIDNIGHT + timedelta(hours=48)).days == 1


def test_seal__what_may_still_come__is_refused(fleet: Fleet) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        fleet.run("SELECT fix_history__seal_v1(now() - interval '71 hours')")
    fleet.run("SELECT fix_history__seal_v1(now() - interval '73 hours')")


def test_limits__kafka_retention__is_the_topics(database: Database) -> None:
    kept_ms = next(one.retention_ms for one in TOPICS if one.name == "driver-pos")
    assert database.value("SELECT kafka_retention_s * 1000 FROM limits") == kept_ms
