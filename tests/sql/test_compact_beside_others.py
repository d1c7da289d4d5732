"""Packing at any moment: beside readers, stopped in the middle, and as a command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from psycopg.rows import dict_row

from doorstep.store.compaction import ChunkMismatch, CompactionLocked, Compactor
from ops.commands import compact_command as command
from sql import read_sql
from tests.database import Database
from tests.sql.fleet import Fleet
from tests.sql.packed_days import BETWEEN, DAY, MIDNIGHT, compact, old_fix, put, read

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


def test_compact__another_session_reads_the_partition__does_not_wait_for_long(
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
