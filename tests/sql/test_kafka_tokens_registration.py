"""Offsets, outbox, watermarks, tokens and registration."""

from __future__ import annotations

import secrets
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from doorstep import errors
from doorstep.store import admin, fix_writer
from tests.database import Database
from tests.factories import make_fix, numbered
from tests.sql.fleet import Fleet, connect_as


def test_advance_offsets__from_where_it_stands__moves(fleet: Fleet, database: Database) -> None:
    with connect_as(database, "driver_events") as conn:
        assert fix_writer.open_offsets(conn, "c", "t", [0, 1]) == {0: 0, 1: 0}
        fix_writer.advance_offsets(conn, "c", "t", {0: (0, 10), 1: (0, 7)})
        assert fix_writer.open_offsets(conn, "c", "t", [0, 1]) == {0: 10, 1: 7}


def test_advance_offsets__one_partition_moved_by_another__moves_none(database: Database) -> None:
    with connect_as(database, "driver_events") as conn:
        fix_writer.open_offsets(conn, "c", "t", [0, 1])
        fix_writer.advance_offsets(conn, "c", "t", {1: (0, 7)})
        with pytest.raises(errors.OffsetLost), conn.transaction():
            fix_writer.advance_offsets(conn, "c", "t", {0: (0, 10), 1: (0, 9)})
        assert fix_writer.open_offsets(conn, "c", "t", [0, 1]) == {0: 0, 1: 7}


def test_open_offsets__a_recreated_topic__starts_at_nought(database: Database) -> None:
    with connect_as(database, "driver_events") as conn:
        fix_writer.open_offsets(conn, "c", "t", [0])
        fix_writer.advance_offsets(conn, "c", "t", {0: (0, 7)})
        assert fix_writer.open_offsets(conn, "c", "t2", [0]) == {0: 0}
        assert fix_writer.open_offsets(conn, "c2", "t", [0]) == {0: 0}


def test_outbox__two_publishers__only_one_gets_records_and_in_order(database: Database) -> None:
    letters = [
        fix_writer.DeadLetter(bytes([n]), "d1" if n else None, "not_json", "mqtt", "a/b", "why", 7)
        for n in range(3)
    ]
    with (
        database.connect("driver_events") as first,
        database.connect("driver_events") as second,
    ):
        fix_writer.add_dead_letters(first, letters)
        fix_writer.add_dead_letters(first, [])
        first.commit()
        taken = fix_writer.take_outbox(first, 2)
        assert fix_writer.take_outbox(second, 2) == []
        assert [record.payload for record in taken] == [b"\0", b"\1"]
        assert [record.key for record in taken] == [None, b"d1"]
        assert ("reason", "not_json") in taken[0].headers
        assert ("received_at_ms", "7") in taken[0].headers
        fix_writer.delete_outbox(first, [record.outbox_id for record in taken])
        first.commit()
        second.commit()
        assert [record.payload for record in fix_writer.take_outbox(second, 2)] == [b"\2"]


def test_read_watermarks__stored_and_refused__both_count_and_gaps_are_missing(
    fleet: Fleet,
) -> None:
    rows = [make_fix(seq=seq) for seq in (1, 2, 5, 9)]
    rows.append(make_fix(seq=6, late_s=90_000))  # too old: refused for good
    fleet.record(numbered(rows))
    with fleet.conn.transaction():
        [mark] = fix_writer.read_watermarks(fleet.conn, [("d1", "b1"), ("d1", "unknown")])
    assert mark == fix_writer.Watermark("d1", "b1", 9, [(3, 4), (7, 8)])


def test_read_watermarks__more_than_64_gaps__stops_before_the_next(fleet: Fleet) -> None:
    fleet.record(numbered([make_fix(seq=2 * k) for k in range(1, 101)]))
    with fleet.conn.transaction():
        [mark] = fix_writer.read_watermarks(fleet.conn, [("d1", "b1")])
    assert len(mark.missing) == 64
    assert mark.missing[0] == (1, 1)
    assert mark.seq == 128


def token_role(fleet: Fleet, token_sha256: bytes) -> str | None:
    rows = fleet.run("SELECT role FROM find_token_v2(%s)", token_sha256)
    return rows[0]["role"] if rows else None


def test_find_token__customer__lives_until_a_day_after_the_end(fleet: Fleet) -> None:
    token = secrets.token_bytes(32)
    order_id: UUID = fleet.create_order(token_sha256=token)["order_id"]
    assert token_role(fleet, token) == "customer"
    fleet.command_order(order_id, "cancel")
    assert token_role(fleet, token) == "customer"
    fleet.run("UPDATE orders SET ended_at = ended_at - interval '23 hours 59 minutes'")
    assert token_role(fleet, token) == "customer"
    fleet.run("UPDATE orders SET ended_at = ended_at - interval '2 minutes'")
    assert token_role(fleet, token) is None


def test_find_token__unknown_revoked_or_replaced__is_none(fleet: Fleet) -> None:
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)
    assert token_role(fleet, old) is None
    admin.register_staff_token(fleet.conn, old)
    admin.register_staff_token(fleet.conn, new)
    admin.register_staff_token(fleet.conn, new)
    assert token_role(fleet, old) is None
    assert token_role(fleet, new) == "staff"


def test_register_drivers__again_with_another_token__keeps_state_and_revokes_the_first(
    fleet: Fleet,
) -> None:
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)
    admin.register_drivers(fleet.conn, [admin.NewDriver("d1", "Anna", old)])
    admin.register_drivers(fleet.conn, [admin.NewDriver("d1", "Anna", new)])
    assert token_role(fleet, old) is None
    assert token_role(fleet, new) == "driver"
    assert fleet.driver()["duty"] == "on_duty"


def test_policy__update_or_delete__is_refused(fleet: Fleet) -> None:
    for statement in (
        "UPDATE policy SET name = 'x'",
        "DELETE FROM policy",
        "TRUNCATE policy CASCADE",
    ):
        with pytest.raises(psycopg.Error) as refusal:
            fleet.run(statement)
        assert refusal.value.sqlstate == "DS013"


def test_ensure_partitions__fixes_in_the_default_one__move_into_the_new(fleet: Fleet) -> None:
    day = "2020-02-03"
    fleet.run(
        "INSERT INTO fix_history (driver_id, fix_at, boot, seq, received_at, lon_deg, lat_deg)"
        " SELECT 'd1', %s::timestamptz + h * interval '12 hours', 'b', h, now(), 0, 1"
        " FROM generate_series(0, 3) h",
        f"{day} 00:00+00",
    )
    made = fleet.run("SELECT fix_history__ensure_partitions_v1(%s, %s) AS made", day, day)
    again = fleet.run("SELECT fix_history__ensure_partitions_v1(%s, %s) AS made", day, day)
    assert (made[0]["made"], again[0]["made"]) == (1, 0)
    assert fleet.run("SELECT count(*) FROM fix_history_20200203")[0]["count"] == 2
    assert fleet.run("SELECT count(*) FROM fix_history_default")[0]["count"] == 2
    assert fleet.run("SELECT count(*) FROM fix_history")[0]["count"] == 4


def test_ensure_partitions__a_fix_of_today__lies_in_its_day(fleet: Fleet) -> None:
    fleet.record([make_fix(late_s=timedelta(hours=23).total_seconds())])
    assert fleet.run("SELECT count(*) FROM fix_history_default")[0]["count"] == 0
