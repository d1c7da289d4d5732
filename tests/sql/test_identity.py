"""Identity of fixes at a bounded cost: settled seqs, and the quota of a driver."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from doorstep.store import fix_writer
from doorstep.store.records import INCOMING_TYPES, IncomingRow, Outcome
from sql import query
from tests.database import Database
from tests.factories import RESTAURANT, make_fix, now, numbered
from tests.sql.fleet import Fleet

BATCH = 2000
QUOTA_PER_S, QUOTA_BURST = 5, 2000  # as sql/schema/20_policies_and_places.sql says


@pytest.fixture
def unlimited(fleet: Fleet) -> Fleet:
    """A fleet whose quota no test reaches, so that the cost of the seqs alone is seen."""
    fleet.run("UPDATE limits SET quota_burst = 1000000000")
    return fleet


def fixes_of(seqs: Iterable[int], *, at: datetime, **values: Any) -> Iterator[IncomingRow]:
    """Make fixes of d1, dated one tenth of a second apart; a negative seq is a void."""
    for seq in seqs:
        if seq < 0:
            yield make_fix(seq=-seq, received_at=at, reason="void", lat_deg=None, lon_deg=None)
        else:
            fix_at = at - timedelta(seconds=80_000) + seq * timedelta(seconds=0.1)
            yield make_fix(seq=seq, fix_at=fix_at, received_at=at, **values)


def send(fleet: Fleet, rows: Iterable[IncomingRow], size: int = BATCH) -> list[Outcome]:
    """Record in batches of `size` and return all outcomes but "committed"."""
    waiting = list(rows)
    outcomes = []
    for start in range(0, len(waiting), size):
        outcomes += fleet.record(numbered(waiting[start : start + size]))
    return outcomes


def blocks(fleet: Fleet) -> int:
    return int(fleet.run("SELECT count(*) FROM boot_seq_block")[0]["count"])


def prefix(fleet: Fleet) -> tuple[int, int]:
    [row] = fleet.run("SELECT settled_to, newest_seq FROM boot_prefix WHERE driver_id = 'd1'")
    return row["settled_to"], row["newest_seq"]


def pages_touched(fleet: Fleet, rows: list[IncomingRow]) -> int:
    """Record a batch and return how many pages of tables and indexes it read or wrote."""
    with fleet.conn.transaction(), fleet.conn.cursor() as cursor:
        cursor.execute(query("prepare_incoming"))
        with cursor.copy(query("copy_incoming")) as copy:
            copy.set_types(INCOMING_TYPES)
            for row in numbered(rows):
                copy.write_row(row)
        explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query("record_fixes")
        [[plan]] = cursor.execute(explain.encode()).fetchall()
    return int(plan[0]["Plan"]["Shared Hit Blocks"]) + int(plan[0]["Plan"]["Shared Read Blocks"])


def watermark(fleet: Fleet, boot: str = "b1") -> Any:
    [mark] = fix_writer.read_watermarks(fleet.conn, [("d1", boot)])
    return mark


ATTACKS = {
    "40,000 odd seqs": list(range(1, 80_000, 2)),
    "40,000 alternating voids": [seq if seq % 2 else -seq for seq in range(1, 40_001)],
}


@pytest.mark.parametrize("name", ATTACKS)
def test_record_fixes__after_an_attack_on_the_seqs__costs_what_it_did(
    unlimited: Fleet, name: str
) -> None:
    at = now()
    ordinary = list(fixes_of(range(1, 501), at=at))
    pages_touched(unlimited, [("n", "d2", *row[2:]) for row in ordinary])  # plans are made
    start = 501
    quiet = []
    for _ in range(3):
        rows = list(fixes_of(range(start, start + 500), at=at))
        quiet.append(pages_touched(unlimited, [(0, "d2", *row[2:]) for row in rows]))
        start += 500
    seqs = ATTACKS[name]
    send(unlimited, fixes_of(seqs, at=at))
    assert blocks(unlimited) <= max(map(abs, seqs)) // 2048 + 1
    rows = list(fixes_of(range(start, start + 500), at=at))
    assert pages_touched(unlimited, [(0, "d2", *row[2:]) for row in rows]) <= 2 * max(quiet)
    more = [seq + 100_000 * (1 if seq > 0 else -1) for seq in seqs[:500]]
    assert pages_touched(unlimited, list(fixes_of(more, at=at))) <= 2 * max(quiet)


def test_record_fixes__40000_odd_seqs__the_even_ones_complete_the_boot(unlimited: Fleet) -> None:
    at = now()
    send(unlimited, fixes_of(ATTACKS["40,000 odd seqs"], at=at))
    assert (watermark(unlimited).seq, len(watermark(unlimited).missing)) == (129, 64)
    send(unlimited, fixes_of(range(2, 80_001, 2), at=at))
    assert prefix(unlimited) == (80_000, 80_000)
    assert blocks(unlimited) == 0
    assert unlimited.run("SELECT count(*) FROM fix_history")[0]["count"] == 80_000


def test_record_fixes__2_to_60000_then_1__moves_over_two_blocks_and_names_no_gap(
    unlimited: Fleet,
) -> None:
    at = now()
    send(unlimited, fixes_of(range(2, 60_001), at=at), size=20_000)
    send(unlimited, fixes_of([1], at=at))
    assert prefix(unlimited) == (4095, 60_000)
    assert (watermark(unlimited).seq, watermark(unlimited).missing) == (60_000, [])
    send(unlimited, fixes_of(range(60_001, 60_030), at=at))
    assert prefix(unlimited) == (60_029, 60_029)
    assert blocks(unlimited) == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_record_fixes__a_shuffle_of_1000_seqs__ends_in_the_same_state(
    unlimited: Fleet, seed: int
) -> None:
    chance = random.Random(seed)
    rows = list(fixes_of(range(1, 1001), at=now()))
    chance.shuffle(rows)
    while rows:
        size = chance.choice([1, 3, 17, 100])
        send(unlimited, rows[:size])
        rows = rows[size:]
    assert prefix(unlimited) == (1000, 1000)
    assert blocks(unlimited) == 0
    assert unlimited.run("SELECT stored::text FROM driver_boot")[0]["stored"] == "{[1,1001)}"


def test_record_fixes__void_1_then_good_1__stores_it_once(fleet: Fleet) -> None:
    at = now()
    assert send(fleet, fixes_of([-1], at=at)) == [Outcome(0, "rejected", "void")]
    assert send(fleet, fixes_of([1], at=at)) == []
    assert send(fleet, fixes_of([1], at=at)) == [Outcome(0, "duplicate", None)]
    assert (prefix(fleet), blocks(fleet)) == ((1, 1), 0)


def test_record_fixes__a_rejected_seq_far_below_the_prefix__can_still_be_stored(
    unlimited: Fleet,
) -> None:
    at = now()
    send(unlimited, fixes_of([-5, *(s for s in range(1, 7000) if s != 5)], at=at))
    assert (prefix(unlimited), blocks(unlimited)) == ((6999, 6999), 1)
    assert send(unlimited, fixes_of([5, 5], at=at)) == [Outcome(1, "duplicate", None)]
    assert (prefix(unlimited), blocks(unlimited)) == ((6999, 6999), 0)


def test_record_fixes__random_seqs_and_voids__are_as_two_sets_say(unlimited: Fleet) -> None:
    chance = random.Random(7)
    at, stored, rejected = now(), set[int](), set[int]()
    for _ in range(40):
        edge = chance.choice([1, 2040, 4090, 8190, 20_000])
        seqs = [edge + chance.randrange(30) for _ in range(chance.choice([1, 2, 20]))]
        signed = [seq * chance.choice([1, 1, -1]) for seq in seqs]
        for seq in signed:
            if seq > 0:
                stored.add(seq)
            else:
                rejected.add(-seq)
        send(unlimited, fixes_of(signed, at=at))
    [row] = unlimited.run(
        "SELECT ARRAY(SELECT ARRAY[lower(r), upper(r)] FROM unnest(stored) r) AS stored,"
        " ARRAY(SELECT ARRAY[lower(r), upper(r)] FROM unnest(rejected) r) AS rejected"
        " FROM driver_boot"
    )
    assert {s for a, b in row["stored"] for s in range(a, b)} == stored
    assert {s for a, b in row["rejected"] for s in range(a, b)} == rejected - stored


# -- the quota ---------------------------------------------------------------------------------


def later(fleet: Fleet, seconds: float) -> int:
    """Let time pass for what is parked, and return how many fixes were recorded."""
    fleet.run(
        "UPDATE driver_quota SET drained_at = drained_at - make_interval(secs => %s)", seconds
    )
    with fleet.conn.transaction():
        return fix_writer.record_parked(fleet.conn)


def parked(fleet: Fleet) -> int:
    return int(fleet.run("SELECT count(*) FROM parked_fix")[0]["count"])


def test_record_fixes__a_flood__parks_what_is_over_the_quota_of_that_driver_alone(
    fleet: Fleet,
) -> None:
    at = now()
    rows = [*fixes_of(range(1, 3001), at=at), make_fix("d2", received_at=at)]
    outcomes = fleet.record(numbered(rows))
    assert {(o.outcome, o.reason) for o in outcomes} == {("parked", "over_quota")}
    assert [o.n for o in outcomes] == list(range(QUOTA_BURST, 3000))
    assert (prefix(fleet), parked(fleet)) == ((QUOTA_BURST, QUOTA_BURST), 1000)
    again = fleet.record(numbered([*fixes_of([3001], at=at), make_fix("d2", 2, late_s=1)]))
    assert [(o.n, o.outcome) for o in again] == [(0, "parked")]


def test_record_parked__over_the_quota__drains_the_oldest_at_half_of_it_until_none_is_left(
    fleet: Fleet,
) -> None:
    at = now()
    fleet.record(numbered(list(fixes_of(range(1, 2601), at=at))))
    assert later(fleet, 40) in range(40 * QUOTA_PER_S // 2, 60 * QUOTA_PER_S // 2)
    [newest] = fleet.run("SELECT max(seq) AS seq, count(*) AS count FROM fix_history")
    assert newest["seq"] == newest["count"]  # in order
    while parked(fleet):
        assert later(fleet, 100) > 0
    assert prefix(fleet) == (2600, 2600)
    assert fleet.run("SELECT * FROM driver_quota") == []
    assert fleet.run("SELECT count(*) FROM fix_history")[0]["count"] == 2600


def test_record_fixes__while_some_are_parked__new_ones_go_on_and_take_back_none(
    fleet: Fleet,
) -> None:
    at = now()
    fleet.record(numbered(list(fixes_of(range(1, 2601), at=at))))
    minute = at + timedelta(seconds=60)
    assert fleet.record(numbered(list(fixes_of(range(2601, 2611), at=minute)))) == []
    assert parked(fleet) == 600


def test_record_fixes__an_ordinary_device_after_an_outage__parks_nothing(fleet: Fleet) -> None:
    at = now()
    hours = [make_fix(seq=k, received_at=at, late_s=4 * (1900 - k)) for k in range(1, 1801)]
    assert fleet.record(numbered(hours)) == []
    for k in range(1801, 1900):
        then = at + timedelta(seconds=4 * (k - 1800))
        assert fleet.record([make_fix(seq=k, received_at=then)]) == []


def test_record_fixes__what_waited_in_kafka_for_hours__parks_nothing(fleet: Fleet) -> None:
    at = now() - timedelta(hours=10)
    rows = [make_fix(seq=k, received_at=at + timedelta(seconds=4 * k)) for k in range(1, 9001)]
    assert send(fleet, rows, size=20_000) == []


def test_record_fixes__copies_count_too__and_are_parked_once_with_the_first_arrival(
    fleet: Fleet,
) -> None:
    at = now()
    assert len(fleet.record(numbered([*fixes_of([1], at=at)] * QUOTA_BURST))) == QUOTA_BURST - 1
    second = at + timedelta(seconds=0.1)
    [copy] = fixes_of([2], at=at)
    late = (*copy[:5], second, *copy[6:])
    for rows in ([late, late], [copy], [late]):
        outcomes = fleet.record(numbered(rows))
        assert {o.outcome for o in outcomes} == {"parked"}
    assert fleet.run("SELECT received_at FROM parked_fix") == [{"received_at": at}]
    assert fleet.run("SELECT parked FROM driver_quota") == [{"parked": 1}]
    other = (*copy[:6], *RESTAURANT, *copy[8:])
    fleet.record([other])
    assert parked(fleet) == 2  # another content is another claim


def test_record_fixes__spoilt_ones_over_the_quota__are_refused_and_settle_nothing(
    fleet: Fleet,
) -> None:
    at = now()
    fleet.record(numbered(list(fixes_of(range(1, QUOTA_BURST + 1), at=at))))
    [bad] = fixes_of([3000], at=at, reason="not_json")
    assert fleet.record([bad]) == [Outcome(0, "rejected", "not_json")]
    assert (parked(fleet), watermark(fleet).seq) == (0, QUOTA_BURST)


def test_record_fixes__more_than_can_be_parked__is_held_by_its_device(fleet: Fleet) -> None:
    fleet.run("UPDATE limits SET max_parked = 100")
    at = now()
    fleet.record(list(fixes_of([1], at=at)))  # `held` is counted for a boot that has had an ack
    outcomes = fleet.record(numbered(list(fixes_of(range(2, QUOTA_BURST + 301), at=at))))
    assert [o.outcome for o in outcomes] == ["parked"] * 300
    assert parked(fleet) == 100
    mark = watermark(fleet)
    assert (mark.seq, mark.held, mark.hold_s) == (QUOTA_BURST, 200, 60)
    while parked(fleet):
        later(fleet, 1000)
    send(fleet, fixes_of(range(QUOTA_BURST + 1, QUOTA_BURST + 301), at=at + timedelta(hours=1)))
    assert (watermark(fleet).seq, watermark(fleet).held) == (QUOTA_BURST + 300, 200)
    assert watermark(fleet).hold_s is None


def test_record_fixes__boots_without_end__are_bounded_by_the_quota(fleet: Fleet) -> None:
    at = now()
    rows = [make_fix(boot=f"b{k}", received_at=at, late_s=k) for k in range(5000)]
    outcomes = send(fleet, rows)
    assert {o.reason for o in outcomes} == {"over_quota"}
    known = fleet.run("SELECT count(*) FROM boot_seqs")[0]["count"]
    assert known == QUOTA_BURST
    assert (watermark(fleet, "b4999").seq, watermark(fleet, "b4999").missing) == (0, [])
    assert watermark(fleet, "b4999").hold_s == 1200  # 3,000 parked at half of 5 a second


def test_record_fixes__beside_a_flood__another_drivers_fix_costs_what_it_did(
    fleet: Fleet,
) -> None:
    at = now()
    pages_touched(fleet, [make_fix("d2", 1, received_at=at, late_s=100)])
    quiet = [
        pages_touched(fleet, [make_fix("d2", k, received_at=at, late_s=100 - k)]) for k in (2, 3)
    ]
    send(fleet, fixes_of(range(1, 40_001), at=at))
    assert parked(fleet) == 40_000 - QUOTA_BURST
    fleet.run("VACUUM boot_seqs, driver_state, parked_fix")
    after = pages_touched(fleet, [make_fix("d2", 4, received_at=at, late_s=90)])
    assert after <= 2 * max(quiet)


def test_record_fixes__parked_for_a_lock__are_not_taken_back_over_the_quota(
    fleet: Fleet, database: Database
) -> None:
    at = now()
    rows = numbered(list(fixes_of(range(1, 2601), at=at)))
    with database.connect() as other:
        other.execute("SELECT FROM driver_state WHERE driver_id = 'd1' FOR NO KEY UPDATE")
        assert {o.reason for o in fleet.record(rows)} == {"locked"}
    fleet.record(list(fixes_of([2601], at=at)))
    assert fleet.run("SELECT count(*) FROM fix_history")[0]["count"] == QUOTA_BURST
    assert parked(fleet) == 601


def test_record_fixes__exempt_with_fixes_parked_for_a_lock__takes_them_back(
    fleet: Fleet, database: Database
) -> None:
    at = now()
    with database.connect() as other:
        other.execute("SELECT FROM driver_state WHERE driver_id = 'd1' FOR NO KEY UPDATE")
        assert {o.reason for o in fleet.record(list(fixes_of([1], at=at)))} == {"locked"}
    with fleet.conn.transaction():
        fleet.run(query("exempt_from_quota"))
        assert fix_writer.record_fixes(fleet.conn, list(fixes_of([2], at=at))) == []
    assert (prefix(fleet), parked(fleet)) == ((2, 2), 0)
    assert sorted(fleet.history("seq")) == [(1,), (2,)]


# -- fixes that are next in line -----------------------------------------------------------------


@pytest.fixture
def going(fleet: Fleet) -> Fleet:
    """Driver d1 with two fixes, so that its next one is next in line."""
    at = now()
    for seq in (1, 2):
        assert fleet.record(list(fixes_of([seq], at=at))) == []
    return fleet


def held_prefix(fleet: Fleet) -> int | None:
    """The prefix that driver_state has, null after a fix that was not next in line."""
    value: int | None = fleet.run("SELECT settled_to FROM driver_state WHERE driver_id = 'd1'")[0][
        "settled_to"
    ]
    return value


def test_record_fixes__next_in_line__moves_the_prefix_of_its_driver_alone(going: Fleet) -> None:
    going.record(numbered(list(fixes_of([3, 4, 5], at=now()))))
    assert going.run("SELECT settled_to FROM boot_seqs") == [{"settled_to": 1}]
    assert (held_prefix(going), prefix(going), watermark(going).seq) == (5, (5, 5), 5)
    assert len(going.history()) == 5


@pytest.mark.parametrize("seqs", [[3, 5], [3, 4, 6], [4], [3, 5, 6]])
def test_record_fixes__with_a_gap__names_it_and_stores_what_fills_it(
    going: Fleet, seqs: list[int]
) -> None:
    at = now()
    assert going.record(numbered(list(fixes_of(seqs, at=at)))) == []
    missing = sorted(set(range(1, max(seqs))) - {1, 2, *seqs})
    assert watermark(going).missing == [(seq, seq) for seq in missing]
    assert held_prefix(going) is None
    assert going.record(numbered(list(fixes_of(missing, at=at)))) == []
    assert prefix(going) == (max(seqs), max(seqs))
    assert held_prefix(going) == max(seqs)


@pytest.mark.parametrize("seqs", [[3, 3], [3, 2], [2, 3], [3, 4, 3]])
def test_record_fixes__with_a_copy__stores_each_once(going: Fleet, seqs: list[int]) -> None:
    outcomes = going.record(numbered(list(fixes_of(seqs, at=now()))))
    assert {one.outcome for one in outcomes} == {"conflict" if 2 in seqs else "duplicate"}
    assert len(going.history()) == max(seqs)


def test_record_fixes__one_of_two_is_quarantined__is_stored_as_such(going: Fleet) -> None:
    at = now()
    [third], [fourth] = fixes_of([3], at=at), fixes_of([4], at=at, accuracy_m=500)
    assert going.record(numbered([third, fourth])) == [Outcome(1, "quarantined", "inaccurate")]
    assert going.driver()["seq"] == 3


def test_record_fixes__dated_before_the_one_before__is_not_the_newest(going: Fleet) -> None:
    at = now()
    [third] = fixes_of([3], at=at)
    back = make_fix(seq=4, fix_at=at - timedelta(seconds=80_060), received_at=at)
    assert going.record(numbered([third, back])) == []
    assert (going.driver()["seq"], prefix(going)) == (3, (4, 4))


def test_record_fixes__a_boot_that_comes_back__goes_on_from_its_own_prefix(going: Fleet) -> None:
    at = now() + timedelta(seconds=1)
    for seq in (3, 1):
        assert going.record(list(fixes_of([seq], at=at, boot="b2"))) == []
    assert going.record(numbered(list(fixes_of([3, 4], at=at)))) == []
    assert (watermark(going).seq, watermark(going).missing) == (4, [])
    assert (watermark(going, "b2").seq, watermark(going, "b2").missing) == (3, [(2, 2)])
    assert going.record(list(fixes_of([3], at=at, boot="b2"))) == [Outcome(0, "duplicate", None)]
