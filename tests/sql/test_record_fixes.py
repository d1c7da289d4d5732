"""The one door for fixes: new or seen, rules of age, quarantine, ranges, the newest fix."""

from __future__ import annotations

from datetime import timedelta

import pytest

from doorstep.store import fix_writer
from doorstep.store.records import IncomingRow, Outcome
from tests.factories import AWAY, RESTAURANT, Place, make_fix, now, numbered
from tests.sql.fleet import Fleet


def one(fleet: Fleet, row: IncomingRow) -> tuple[str, str | None]:
    """Record one fix and tell what became of it."""
    outcomes = fleet.record([row])
    return (outcomes[0].outcome, outcomes[0].reason) if outcomes else ("committed", None)


def ranges(fleet: Fleet, driver_id: str = "d1") -> tuple[str, str] | None:
    rows = fleet.run(
        "SELECT stored::text, rejected::text FROM driver_boot WHERE driver_id = %s", driver_id
    )
    return (rows[0]["stored"], rows[0]["rejected"]) if rows else None


def test_record_fixes__empty_batch__writes_nothing(fleet: Fleet) -> None:
    assert fleet.record([]) == []
    assert fleet.history() == []


def test_record_fixes__a_fix__is_in_the_history_and_the_drivers_state(fleet: Fleet) -> None:
    row = make_fix(accuracy_m=5.0, speed_mps=3.0, heading_deg=90.0, altitude_m=50.0, battery=0.5)
    assert one(fleet, row) == ("committed", None)
    columns = (
        "fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps, heading_deg, altitude_m"
    )
    expected = row[4:12]
    assert fleet.history(*columns.split(", ")) == [expected]
    state = fleet.run(
        f"SELECT {columns}, ST_X(geom) AS x, ST_Y(geom) AS y FROM driver_state"
        " WHERE driver_id = 'd1'"
    )[0]
    assert tuple(state.values()) == (*expected, AWAY.lon_deg, AWAY.lat_deg)
    assert ranges(fleet) == ("{[1,2)}", "{}")


def test_record_fixes__duplicate_seq__advances_nothing(fleet: Fleet) -> None:
    row = make_fix()
    fleet.record([row])
    before = (fleet.history("recorded_at"), fleet.driver(), ranges(fleet))
    assert one(fleet, row) == ("duplicate", None)
    assert (fleet.history("recorded_at"), fleet.driver(), ranges(fleet)) == before


def test_record_fixes__duplicate_a_day_later__is_still_a_duplicate(fleet: Fleet) -> None:
    at = now()
    fleet.record([make_fix(fix_at=at)])
    late = make_fix(fix_at=at, received_at=at + timedelta(days=2))
    assert one(fleet, late) == ("duplicate", None)


def test_record_fixes__same_seq_other_content__is_a_conflict(fleet: Fleet) -> None:
    at = now()
    fleet.record([make_fix(fix_at=at)])
    assert one(fleet, make_fix(fix_at=at, place=RESTAURANT)) == ("conflict", None)
    assert one(fleet, make_fix(fix_at=at, battery=0.5)) == ("conflict", None)
    assert one(fleet, make_fix(fix_at=at - timedelta(seconds=1))) == ("conflict", None)
    assert len(fleet.history()) == 1


def test_record_fixes__copies_in_one_batch__do_what_batches_of_one_do(fleet: Fleet) -> None:
    at = now()
    first, other = make_fix(fix_at=at), make_fix(fix_at=at, place=RESTAURANT)
    old = make_fix(seq=2, late_s=90_000, received_at=at)
    outcomes = fleet.record(numbered([first, first, other, first, old, old]))
    assert sorted((o.n, o.outcome, o.reason) for o in outcomes) == [
        (1, "duplicate", None),
        (2, "conflict", None),
        (3, "duplicate", None),
        (4, "rejected", "too_old"),
        (5, "rejected", "rejected_before"),
    ]
    assert len(fleet.history()) == 1
    assert ranges(fleet) == ("{[1,2)}", "{[2,3)}")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"late_s": 86_401}, "too_old"),
        ({"late_s": -121}, "in_the_future"),
        ({"place": Place(11, 90.5)}, "latitude_out_of_range"),
        ({"place": Place(11, float("nan"))}, "latitude_out_of_range"),
        ({"place": Place(-180.5, 43)}, "longitude_out_of_range"),
        ({"place": Place(float("inf"), 43)}, "longitude_out_of_range"),
        ({"accuracy_m": -1.0}, "accuracy_out_of_range"),
        ({"accuracy_m": float("nan")}, "accuracy_out_of_range"),
        ({"speed_mps": 501.0}, "speed_out_of_range"),
        ({"heading_deg": 360.0}, "heading_out_of_range"),
        ({"altitude_m": 20_001.0}, "altitude_out_of_range"),
        ({"battery": 1.1}, "battery_out_of_range"),
        ({"lat_deg": None}, "missing_field"),
        ({"reason": "not_json"}, "not_json"),
        ({"reason": "void", "lat_deg": None, "lon_deg": None}, "void"),
    ],
)
def test_record_fixes__refused__is_not_stored_and_passed_by_the_watermark(
    fleet: Fleet, values: dict[str, object], reason: str
) -> None:
    assert one(fleet, make_fix(**values)) == ("rejected", reason)  # type: ignore[arg-type]
    assert fleet.history() == []
    assert ranges(fleet) == ("{}", "{[1,2)}")
    assert one(fleet, make_fix(**values)) == ("rejected", "rejected_before")  # type: ignore[arg-type]
    assert one(fleet, make_fix()) == ("committed", None)  # a good copy is not kept out
    assert ranges(fleet) == ("{[1,2)}", "{}")


@pytest.mark.parametrize("late_s", [86_399, -119])
def test_record_fixes__at_the_edge_of_the_window__is_stored(fleet: Fleet, late_s: float) -> None:
    assert one(fleet, make_fix(late_s=late_s)) == ("committed", None)


@pytest.mark.parametrize("missing", [{"boot": None}, {"seq": None}, {"boot": ""}, {"seq": 0},
                                     {"seq": -5}, {"seq": 2**62 + 1}])  # fmt: skip
def test_record_fixes__half_an_identity__is_refused_and_marks_nothing(
    fleet: Fleet, missing: dict[str, object]
) -> None:
    assert one(fleet, make_fix(**missing))[0] == "rejected"  # type: ignore[arg-type]
    assert fleet.history() == []
    assert ranges(fleet) in (None, ("{}", "{}"))


def test_record_fixes__void_of_a_stored_seq__is_a_duplicate(fleet: Fleet) -> None:
    fleet.record([make_fix()])
    assert one(fleet, make_fix(reason="void", lat_deg=None, lon_deg=None)) == ("duplicate", None)
    assert ranges(fleet) == ("{[1,2)}", "{}")


def test_record_fixes__unknown_driver__is_refused_beside_the_others(fleet: Fleet) -> None:
    outcomes = fleet.record(numbered([make_fix("unknown-driver"), make_fix("d1")]))
    assert outcomes == [Outcome(0, "rejected", "unknown_driver")]
    assert [row[0] for row in fleet.history()] == ["d1"]


def test_record_fixes__before_what_is_sealed__is_counted_never_stored(fleet: Fleet) -> None:
    fleet.run("UPDATE history_bounds SET sealed_before = now() - interval '1 hour'")
    assert one(fleet, make_fix(late_s=3_601)) == ("rejected", "sealed")
    assert one(fleet, make_fix(seq=2, late_s=3_599)) == ("committed", None)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"place": Place(0.0, 0.0)}, "null_island"),
        ({"place": Place(RESTAURANT.lat_deg, RESTAURANT.lon_deg)}, "swapped"),
        ({"accuracy_m": 201.0}, "inaccurate"),
    ],
)
def test_record_fixes__quarantined__is_stored_and_moves_nobody(
    fleet: Fleet, values: dict[str, object], reason: str
) -> None:
    fleet.record([make_fix(seq=1, late_s=10)])
    before = fleet.driver()
    assert one(fleet, make_fix(seq=2, **values)) == ("quarantined", reason)  # type: ignore[arg-type]
    assert [row[4] for row in fleet.history()] == [None, reason]
    assert fleet.driver() == before
    assert ranges(fleet) == ("{[1,3)}", "{}")


def test_record_fixes__outside_every_area_even_when_swapped__is_not_quarantined(
    fleet: Fleet,
) -> None:
    assert one(fleet, make_fix(place=Place(2.35, 48.86))) == ("committed", None)


def test_record_fixes__a_late_fix__never_rewinds_the_newest(fleet: Fleet) -> None:
    fleet.record([make_fix(seq=2, place=RESTAURANT)])
    fleet.record([make_fix(seq=1, place=AWAY, late_s=60)])
    assert fleet.driver()["seq"] == 2
    assert len(fleet.history()) == 2


def test_record_fixes__same_instant__the_newest_is_the_same_in_any_order(fleet: Fleet) -> None:
    at = now()
    rows = [make_fix(seq=1, fix_at=at, place=AWAY), make_fix(seq=2, fix_at=at, place=RESTAURANT)]
    fleet.record(numbered(rows))
    fleet.record(numbered([(0, "d2", *row[2:]) for row in rows[::-1]]))
    assert fleet.driver("d1")["seq"] == fleet.driver("d2")["seq"] == 2


def test_record_fixes__without_identity__is_known_by_time_and_place(fleet: Fleet) -> None:
    at = now()
    row = make_fix(boot=None, seq=None, fix_at=at)
    assert one(fleet, row) == ("committed", None)
    assert one(fleet, row) == ("duplicate", None)
    assert one(fleet, make_fix(boot=None, seq=None, fix_at=at, battery=0.1)) == ("conflict", None)
    elsewhere = make_fix(boot=None, seq=None, fix_at=at, place=RESTAURANT)
    assert one(fleet, elsewhere) == ("committed", None)
    assert fleet.run("SELECT count(*) FROM driver_boot")[0]["count"] == 0


def test_record_fixes__copies_without_identity_in_one_batch__are_one_fix(fleet: Fleet) -> None:
    at = now()
    row = make_fix(boot=None, seq=None, fix_at=at)
    old = make_fix(boot=None, seq=None, fix_at=at, received_at=at + timedelta(days=2))
    outcomes = fleet.record(numbered([old, row, row, old, row]))
    assert sorted((o.n, o.outcome) for o in outcomes) == [
        (0, "rejected"),
        (2, "duplicate"),
        (3, "duplicate"),  # stored by now, so its own age does not matter
        (4, "duplicate"),
    ]
    assert len(fleet.history()) == 1


def test_record_fixes__two_boots__have_ranges_of_their_own(fleet: Fleet) -> None:
    fleet.record(numbered([make_fix(boot="b1"), make_fix(boot="b2", late_s=1)]))
    rows = fleet.run("SELECT boot, stored::text FROM driver_boot ORDER BY boot")
    assert [tuple(row.values()) for row in rows] == [("b1", "{[1,2)}"), ("b2", "{[1,2)}")]


def test_record_fixes__out_of_order_and_with_gaps__ranges_join_up(fleet: Fleet) -> None:
    for seqs in ((5, 1), (3,), (2, 4, 9)):
        fleet.record(numbered([make_fix(seq=seq, late_s=100 - seq) for seq in seqs]))
    assert ranges(fleet) == ("{[1,6),[9,10)}", "{}")


def test_record_fixes__two_batches_in_one_transaction__both_are_written(fleet: Fleet) -> None:
    with fleet.conn.transaction():
        fix_writer.record_fixes(fleet.conn, [make_fix(seq=1)])
        fix_writer.record_fixes(fleet.conn, [make_fix(seq=2, late_s=1)])
    assert len(fleet.history()) == 2


def test_record_fixes__newest_fix_in_another_cell__moves_the_driver_there(fleet: Fleet) -> None:
    fleet.record([make_fix(seq=1, place=RESTAURANT, late_s=20)])
    [first] = fleet.run("SELECT cell FROM driver_cell")
    fleet.record([make_fix(seq=2, place=RESTAURANT.north(5), late_s=10)])
    assert fleet.run("SELECT cell FROM driver_cell") == [first]
    fleet.record([make_fix(seq=3, place=RESTAURANT.north(3_000))])
    assert fleet.run("SELECT cell FROM driver_cell") != [first]


def test_driver_state__rewritten_by_every_batch__all_updates_are_hot_from_the_first(
    fleet: Fleet,
) -> None:
    fleet.add_drivers(*(f"m{k}" for k in range(200)))
    statement = (
        "SELECT relname, n_tup_upd AS updates, n_tup_hot_upd AS hot"
        " FROM pg_stat_user_tables WHERE relname IN ('driver_state', 'boot_seqs')"
    )
    fleet.run("SELECT pg_stat_force_next_flush()")
    before = {row["relname"]: row for row in fleet.run(statement)}
    for seq in range(1, 22):
        fleet.record(numbered([make_fix(f"m{k}", seq, late_s=99 - seq) for k in range(200)]))
    fleet.run("SELECT pg_stat_force_next_flush()")
    for name, row in {row["relname"]: row for row in fleet.run(statement)}.items():
        updates = row["updates"] - before[name]["updates"]
        assert updates == (21 * 200 if name == "driver_state" else 0)  # boots are inserted first
        assert row["hot"] - before[name]["hot"] >= updates * 0.99
