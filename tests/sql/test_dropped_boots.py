"""Boots of which every fix is sealed are dropped, and no copy of a fix is stored again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from doorstep.store.compaction import Compactor
from doorstep.store.records import IncomingRow, Outcome
from tests.database import Database
from tests.factories import make_fix, numbered
from tests.sql.fleet import Fleet

# of a day that is past the lateness window and Kafka's retention
OLD_AT = datetime.now(tz=UTC).replace(hour=12, minute=0) - timedelta(days=6)


def old_fix(seq: int, boot: str, driver_id: str = "d1", **values: Any) -> IncomingRow:
    at = OLD_AT + timedelta(seconds=10 * seq)
    return make_fix(driver_id, seq, boot=boot, fix_at=at, received_at=at, **values)


def boots(fleet: Fleet) -> list[tuple[str, str]]:
    rows = fleet.run("SELECT driver_id, boot FROM boot_seqs ORDER BY driver_id, boot")
    return [(row["driver_id"], row["boot"]) for row in rows]


def age_boots(fleet: Fleet) -> None:
    """Let what is known of every boot be as old as its fixes."""
    fleet.run("UPDATE boot_seqs SET settled_at = %s", OLD_AT)


def compact(database: Database) -> int:
    """Seal, pack, and return how many boots were dropped."""
    with database.connect("driver_events") as conn:
        compactor = Compactor(conn)
        return compactor.run(compactor.plan(None)).dropped_boots


@pytest.fixture
def aged(fleet: Fleet) -> Fleet:
    """Driver d1 with an old boot, with a gap and a void, and a boot begun later."""
    rows = [
        *(old_fix(seq, "old") for seq in (1, 2, 5, 3000)),
        old_fix(6, "old", reason="void", lat_deg=None, lon_deg=None),
        old_fix(4000, "later"),
    ]
    fleet.record(numbered(rows))
    age_boots(fleet)
    return fleet


def test_compaction__a_boot_of_sealed_fixes__is_dropped_with_its_rows(
    aged: Fleet, database: Database
) -> None:
    assert compact(database) == 1
    assert boots(aged) == [("d1", "later")]
    kept = aged.run("SELECT boot, count(*) AS count FROM boot_seq_block GROUP BY boot")
    assert kept == [{"boot": "later", "count": 1}]


def test_record_fixes__copies_of_a_dropped_boot__are_sealed_and_not_stored_again(
    aged: Fleet, database: Database
) -> None:
    compact(database)
    # packed rows stay until no session anywhere reads by an older snapshot
    counts = "SELECT (SELECT sum(fix_count) FROM fix_chunk), (SELECT count(*) FROM fix_history)"
    before = aged.run(counts)
    copies = numbered(old_fix(seq, "old") for seq in (1, 2, 5, 3000))
    expected = [Outcome(n, "rejected", "sealed") for n in range(4)]
    assert aged.record(copies) == expected
    again = aged.record(copies)
    assert [(one.outcome, one.reason) for one in again] == [("rejected", "rejected_before")] * 4
    assert aged.run(counts) == before


def test_compaction__the_boot_of_a_drivers_newest_fix__stays_and_its_seqs_go_on(
    aged: Fleet, database: Database
) -> None:
    compact(database)
    assert aged.record([make_fix("d1", 4001, boot="later")]) == []
    assert aged.record([old_fix(4000, "later")]) == [Outcome(0, "duplicate", None)]
    [known] = aged.run("SELECT newest_seq FROM boot_prefix WHERE boot = 'later'")
    assert known["newest_seq"] == 4001


def test_compaction__a_boot_with_a_recent_seq__stays(aged: Fleet, database: Database) -> None:
    aged.record([make_fix("d1", 3001, boot="old"), make_fix("d1", 1, boot="newest")])
    assert compact(database) == 1  # "later" is not the newest any more
    assert boots(aged) == [("d1", "newest"), ("d1", "old")]
    assert aged.record([old_fix(3000, "old")]) == [Outcome(0, "duplicate", None)]


def test_compaction__a_locked_driver__keeps_its_boots_until_the_next_run(
    aged: Fleet, database: Database
) -> None:
    with database.connect() as other:
        other.execute("SELECT FROM driver_state WHERE driver_id = 'd1' FOR NO KEY UPDATE")
        aged.run("UPDATE history_bounds SET sealed_before = now() - interval '4 days'")
        assert drop(aged) == (2, 0)
    assert drop(aged) == (2, 1)


def drop(fleet: Fleet, at_most: int = 1) -> tuple[int, int]:
    """Drop in batches of `at_most`; return how many there were and how many boots were dropped."""
    last: tuple[str, str] = ("", "")
    dropped = []
    while rows := fleet.run("SELECT * FROM boot_seqs__drop_sealed_v1(%s, %s, %s)", *last, at_most):
        last = (rows[0]["last_driver_id"], rows[0]["last_boot"])
        dropped.append(rows[0]["boots"])
    return len(dropped), sum(dropped)


def test_forget_position__of_a_driver_next_in_line__keeps_what_is_known_of_the_boot(
    fleet: Fleet,
) -> None:
    rows = [make_fix("d1", seq, late_s=10 - seq) for seq in (1, 2, 3)]
    for row in rows:
        fleet.record([row])
    fleet.run("SELECT driver_state__forget_position(ARRAY['d1'])")
    assert fleet.record([rows[2]]) == [Outcome(0, "duplicate", None)]
    assert fleet.record([make_fix("d1", 4)]) == []
    [known] = fleet.run("SELECT settled_to, newest_seq FROM boot_prefix")
    assert (known["settled_to"], known["newest_seq"]) == (4, 4)
