"""The history at rest: packed days read as before, whatever happens while they are packed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from doorstep.kafka.topic_specs import TOPICS
from doorstep.store.compaction import ChunkMismatch, Compacted, CompactionLocked, Compactor
from ops.commands import compact_command as command
from ops.commands.trace import InHistory
from ops.ledger import _read_boots
from sql import read_sql
from tests.database import Database
from tests.factories import AWAY, make_fix
from tests.sql.fleet import Fleet
from tracking_api.stores import open_stores

DAY = datetime.now(tz=UTC).date() - timedelta(days=10)
MIDNIGHT = datetime.combine(DAY, time(), UTC)
MAX_SEQ = 4611686018427387904
KEPT = (
    "fix_at, boot, seq, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg, "
    "quarantine, battery"
)
PUT = f"COPY fix_history (driver_id, {KEPT}) FROM STDIN"
BETWEEN = f"""
    SELECT {KEPT} FROM fix_history__between_v1(%s, %s, %s) ORDER BY fix_at, boot, seq
"""
ROUND_TRIP = f"""
    SELECT {", ".join("u." + name for name in KEPT.split(", "))}
    FROM fix_chunk__pack(%s, ARRAY['d1']) c CROSS JOIN LATERAL fix_chunk__unpack(c) u
    ORDER BY u.fix_at, u.boot, u.seq
"""
SECOND = timedelta(seconds=1)
TO_10_CM = 0.1 / 111_320  # degrees of latitude

Row = tuple[Any, ...]


def old_fix(n: int, **values: Any) -> Row:
    """The n-th fix of a walk on DAY, one every 4 s."""
    fix_at = values.pop("fix_at", MIDNIGHT + timedelta(hours=9, seconds=4 * n, milliseconds=n % 7))
    row = {
        "fix_at": fix_at,
        "boot": "b1",
        "seq": n + 1,
        "received_at": fix_at + timedelta(milliseconds=300),
        "lon_deg": round(AWAY.lon_deg + n * 1e-5, 7),
        "lat_deg": round(AWAY.lat_deg + n * 2e-6, 7),
        "accuracy_m": 4.5,
        "speed_mps": 3.1,
        "heading_deg": 271.0,
        "quarantine": None,
        "battery": 0.8 - n // 300 / 100,
    }
    return tuple((row | values).values())


def put(fleet: Fleet, rows: Sequence[Row], driver_id: str = "d1") -> None:
    """Store fixes as if they had come when that day was young."""
    fleet.run("SELECT fix_history__ensure_partitions_v1(%s, %s)", DAY, DAY)
    put_by_default(fleet, rows, driver_id)


def put_by_default(fleet: Fleet, rows: Sequence[Row], driver_id: str = "d1") -> None:
    """Store fixes, and make no partition for them."""
    with fleet.conn.cursor() as cursor, cursor.copy(PUT) as copy:
        for row in rows:
            copy.write_row((driver_id, *row))


def read(fleet: Fleet, driver_id: str = "d1") -> list[Row]:
    rows = fleet.run(BETWEEN, driver_id, MIDNIGHT, MIDNIGHT + timedelta(days=1))
    return [tuple(row.values()) for row in rows]


def is_about(packed: Row, row: Row) -> bool:
    """Whether a fix is what it was, to the precision that is promised."""
    *same, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg = (
        packed[i] for i in (0, 1, 2, 9, 3, 4, 5, 6, 7, 8)
    )
    turned = abs((heading_deg or 0) - (row[8] or 0))
    return (
        same == [row[0], row[1], row[2], row[9]]
        and abs((received_at - row[3]).total_seconds()) <= 0.0501
        and abs(lon_deg - row[4]) < TO_10_CM
        and abs(lat_deg - row[5]) < TO_10_CM
        and [one is None for one in packed] == [one is None for one in row]
        and abs((packed[10] or 0) - (row[10] or 0)) <= 0.00501
        and abs((accuracy_m or 0) - (row[6] or 0)) <= 0.0501
        and abs((speed_mps or 0) - (row[7] or 0)) <= 0.0501
        and min(turned, 360 - turned) <= 0.501
    )


def compact(database: Database, unread: datetime | None = None, role: str = "") -> Compacted:
    with database.connect(role or "doorstep_owner") as conn:
        compactor = Compactor(conn)
        return compactor.run(compactor.plan(unread))


def held_by(database: Database, unread: datetime | None = None) -> str:
    with database.connect() as conn:
        plan = Compactor(conn).plan(unread)
    assert plan.days == []
    return plan.held_by


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


# -- at any moment --------------------------------------------------------------------------------


def test_compact__stopped_in_the_middle__goes_on_and_nothing_is_twice_or_gone(
    fleet: Fleet, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorstep.store.compaction.DRIVERS_PER_COMMIT", 1)
    for driver_id in ("d1", "d2"):
        put(fleet, [old_fix(n) for n in range(5)], driver_id)
    with database.connect() as conn:
        compactor = Compactor(conn)
        done = compactor.run(compactor.plan(None), rest=lambda _s: False)
        with pytest.raises(CompactionLocked):
            compact(database)
    assert done.days == 0
    assert database.value("SELECT count(*) FROM fix_chunk") == 1
    assert [len(read(fleet, driver_id)) for driver_id in ("d1", "d2")] == [5, 5]
    assert compact(database).fixes == 10
    assert database.value("SELECT count(*) FROM fix_chunk") == 2
    assert [len(read(fleet, driver_id)) for driver_id in ("d1", "d2")] == [5, 5]


def test_compact__a_reader_by_an_older_snapshot__sees_every_fix_once_and_is_waited_for(
    fleet: Fleet, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorstep.store.compaction.DROP_TRIES", 1)
    put(fleet, [old_fix(n) for n in range(5)])
    asked = ["d1", MIDNIGHT, MIDNIGHT + timedelta(days=1)]
    with database.connect("tracking_api") as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM driver")  # its snapshot, and no lock on the history
        assert compact(database).still_there == 1
        assert len(reader.execute(BETWEEN, asked).fetchall()) == 5
        assert len(read(fleet)) == 5
    assert compact(database).still_there == 0
    assert len(read(fleet)) == 5


def test_compact__somebody_reads_the_partition__does_not_wait_for_long(
    fleet: Fleet, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorstep.store.compaction.DROP_TRIES", 1)
    put(fleet, [old_fix(n) for n in range(5)])
    with database.connect() as reader:
        reader.execute("LOCK TABLE fix_history IN ACCESS SHARE MODE")
        assert compact(database).still_there == 1
    assert compact(database).still_there == 0


def test_compact__a_chunk_that_is_not_what_it_packs__stops_it_and_loses_nothing(
    fleet: Fleet, database: Database
) -> None:
    put(fleet, [old_fix(n) for n in range(5)])
    before = read(fleet)
    code = read_sql("schema/46_history_compaction.sql").partition(
        "CREATE FUNCTION fix_chunk__pack"
    )[2]
    body = code.partition("\n$$;")[0].replace("7, 1, CASE", "4, 1, CASE")  # 10 m
    fleet.conn.execute(f"CREATE OR REPLACE FUNCTION fix_chunk__pack{body}\n$$".encode())
    with pytest.raises(ChunkMismatch, match="of 5 fixes"):
        compact(database)
    assert read(fleet) == before
    assert database.value("SELECT count(*) FROM fix_chunk") == 0


def test_switch__a_fix_that_is_in_no_chunk__is_refused(fleet: Fleet, database: Database) -> None:
    put(fleet, [old_fix(n) for n in range(5)])
    with database.connect() as conn:
        compactor = Compactor(conn)
        plan = compactor.plan(None)
        compactor._seal(plan.before)
        assert compactor._rows("pack", day=DAY, after=None, at_most=20)
        put(fleet, [old_fix(9)])
        with pytest.raises(ChunkMismatch, match="5 of 6 fixes"):
            compactor._rows("switch", day=DAY)
    assert compact(database).fixes == 6


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def all_read(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command's environment; instead of Kafka, the word that nothing waits there."""
    monkeypatch.setenv("DATABASE_ADMIN_URL", database.url())
    monkeypatch.setattr(command, "oldest_unread_at", lambda *_: None)
    return None


@pytest.mark.usefixtures("all_read")
def test_command__dry_run_then_run_then_retention__says_and_does_it(
    fleet: Fleet, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    put(fleet, [old_fix(n) for n in range(5)])
    assert command.main(["--dry-run"]) == 0
    assert f"would pack {DAY}: 5 fixes" in capsys.readouterr().out
    assert len(fleet.history()) == 5
    assert command.main(["--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["days"], answer["fixes"], answer["at_rest"]["fixes"]) == (1, 5, 5)
    assert command.main(["--dry-run", "--retention-days", "9"]) == 0
    assert "would delete 5 fixes" in capsys.readouterr().out
    assert command.main(["--retention-days", "11"]) == 0
    assert len(read(fleet)) == 5
    assert command.main(["--retention-days", "9"]) == 0
    assert "deleted 5 fixes" in capsys.readouterr().out
    assert read(fleet) == []
    assert database.value("SELECT history_days FROM limits") == 9


@pytest.mark.usefixtures("all_read")
def test_command__while_another_packs__says_so(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    with database.connect() as conn:
        with conn.cursor(row_factory=dict_row):
            Compactor(conn)
        assert command.main([]) == 1
    assert "another compaction is running" in capsys.readouterr().err


def test_command__a_bad_number_of_days__is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("6", "x", "-3", "99999"):
        with pytest.raises(SystemExit):
            command.main(["--retention-days", text])
    assert "7 to 36,500" in capsys.readouterr().err
