"""The ledger with a real journal and a real database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from device.journal import Journal
from ops.fleet_statistics import (
    read_evidence,
    read_freshness_s,
    read_latency_ms,
    read_orders,
)
from ops.ledger import Ledger, compare, read_journals
from tests.database import Database
from tests.factories import Place, make_fix, now, numbered
from tests.sql.fleet import Fleet

ATLANTIS = Place(0.0, 0.0)


@pytest.fixture
def fleet(database: Database) -> Iterator[Fleet]:
    one = Fleet(database)
    one.add_drivers("d1", "d2")
    yield one
    one.close()


def publish(folder: Path, driver_id: str, last_seq: int) -> str:
    """Write seqs to a driver's journal, and return its boot."""
    with Journal(folder / f"{driver_id}.sqlite") as journal:
        boot = journal.open_boot(driver_id)
        journal.append([(boot.boot_id, seq, b"{}") for seq in range(1, last_seq + 1)])
        return boot.boot


def account(fleet: Fleet, folder: Path) -> Ledger:
    return compare(fleet.conn, read_journals(folder))


def test_compare__all_recorded__agrees(fleet: Fleet, tmp_path: Path) -> None:
    boot = publish(tmp_path, "d1", 20)
    fleet.record(numbered([make_fix("d1", seq, boot=boot) for seq in range(1, 21)]))
    ledger = account(fleet, tmp_path)
    assert ledger.agrees
    assert ledger.fixes() == {
        "published": 20,
        "committed": 20,
        "quarantined": 0,
        "rejected": 0,
        "lost": 0,
    }


def test_compare__one_missing_one_refused_one_quarantined__counts_each(
    fleet: Fleet, tmp_path: Path
) -> None:
    boot = publish(tmp_path, "d1", 10)
    rows = [make_fix("d1", seq, boot=boot) for seq in (1, 2, 3, 5, 6, 7)]
    rows.append(make_fix("d1", 8, boot=boot, place=ATLANTIS))
    rows.append(make_fix("d1", 9, boot=boot, fix_at=now() - timedelta(days=3)))
    rows.append(make_fix("d1", 10, boot=boot, reason="void"))
    fleet.record(numbered(rows))
    ledger = account(fleet, tmp_path)
    assert not ledger.agrees
    assert ledger.fixes() == {
        "published": 10,
        "committed": 7,
        "quarantined": 1,
        "rejected": 2,
        "lost": 1,
    }
    assert ledger.balances[0].lost == [(4, 4)]
    assert ledger.quarantined == {"null_island": 1}


def test_compare__a_row_gone_from_the_history__is_lost_whatever_the_ranges_say(
    fleet: Fleet, tmp_path: Path
) -> None:
    boot = publish(tmp_path, "d1", 5)
    fleet.record(numbered([make_fix("d1", seq, boot=boot) for seq in range(1, 6)]))
    fleet.run("DELETE FROM fix_history WHERE seq = 3")
    ledger = account(fleet, tmp_path)
    assert ledger.lost == 1
    assert ledger.balances[0].inconsistent


def test_compare__several_drivers_and_boots__have_balances_of_their_own(
    fleet: Fleet, tmp_path: Path
) -> None:
    first, second = publish(tmp_path, "d1", 3), publish(tmp_path, "d2", 4)
    with Journal(tmp_path / "d1.sqlite") as journal:
        boot = journal.begin_boot("d1")
        journal.append([(boot.boot_id, 1, b"{}")])
    fleet.record(
        numbered(
            [make_fix("d1", seq, boot=first) for seq in (1, 2, 3)]
            + [make_fix("d2", seq, boot=second) for seq in (1, 2, 4)]
            + [make_fix("d1", 1, boot=boot.boot)]
        )
    )
    ledger = account(fleet, tmp_path)
    assert {(one.driver_id, one.boot): list(one.lost) for one in ledger.balances} == {
        ("d1", first): [],
        ("d1", boot.boot): [],
        ("d2", second): [(3, 3)],
    }


def test_read_latency_ms__late_fixes__counts_from_the_due_instant(fleet: Fleet) -> None:
    since = now() - timedelta(seconds=60)
    due_at = now() - timedelta(seconds=2)
    fleet.record(numbered([make_fix("d1", seq, late_s=2.0) for seq in range(1, 50)]))
    latency = read_latency_ms(fleet.conn, ["d1"], since)
    assert latency is not None
    since_due_ms = (now() - due_at) / timedelta(milliseconds=1)
    assert 2000 <= latency["p50"] <= latency["p95"] <= latency["p99"] <= since_due_ms
    assert read_latency_ms(fleet.conn, ["d2"], since) is None
    age_s = read_freshness_s(fleet.conn, ["d1"], since)
    assert age_s is not None
    assert 2.0 <= age_s <= (now() - due_at).total_seconds()
    assert read_freshness_s(fleet.conn, ["d2"], since) is None


def test_read_orders__one_open_order__lists_all_states_since_then(
    fleet: Fleet,
) -> None:
    fleet.create_order()
    later = now() + timedelta(seconds=60)
    counts = read_orders(fleet.conn, ["d1"], now() - timedelta(seconds=60))
    assert next(iter(counts)) == "created"
    assert list(counts)[-3:] == ["delivered", "cancelled", "failed"]
    assert counts["created"] == 1
    assert sum(read_orders(fleet.conn, ["d1"], later).values()) == 0
    assert read_evidence(fleet.conn, ["d1"], later) == {}
