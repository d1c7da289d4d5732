"""Fixes taken off duty are dropped: docs/explanation/privacy.md, "Positions off duty"."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import permutations

import pytest

from doorstep.store.records import IncomingRow, Outcome
from tests.factories import AWAY, make_fix, now, numbered
from tests.sql.fleet import Fleet

DROPPED = ("dropped", "off_duty")


@dataclass(frozen=True)
class Shift:
    """d1 was on duty from `on_at` to `off_at`, after an earlier shift."""

    first_at: datetime
    earlier_off_at: datetime
    on_at: datetime
    off_at: datetime


@pytest.fixture
def shift(fleet: Fleet) -> Shift:
    """A shift in the past: the commands are moved there, in their order."""
    for command in ("off_duty", "on_duty", "off_duty"):
        fleet.command_driver("d1", command)
    hours_ago = (8, 6, 4, 2)
    instants = [now() - timedelta(hours=hours) for hours in hours_ago]
    ids = [row["id"] for row in commands(fleet)]
    for number, at in zip(ids, instants, strict=True):
        fleet.run(
            "UPDATE driver_command SET commanded_at = %s WHERE driver_command_id = %s", at, number
        )
    return Shift(*instants)


def commands(fleet: Fleet) -> list[dict[str, object]]:
    return fleet.run(
        "SELECT driver_command_id AS id FROM driver_command WHERE driver_id = 'd1' ORDER BY 1"
    )


def fix(
    at: datetime, seq: int, received_at: datetime | None = None, **values: object
) -> IncomingRow:
    return make_fix(seq=seq, fix_at=at, received_at=received_at or at, **values)  # type: ignore[arg-type]


def stored(fleet: Fleet) -> list[int]:
    return sorted(seq for (seq,) in fleet.history("seq"))


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def test_record_fixes__off_duty__drops_settles_and_counts_no_dead_letter(
    fleet: Fleet, shift: Shift
) -> None:
    outcomes = fleet.record([fix(shift.off_at + minutes(5), 1)])
    assert [(o.outcome, o.reason) for o in outcomes] == [DROPPED]
    assert stored(fleet) == []
    assert fleet.driver()["fix_at"] is None
    [watermark] = fleet.run("SELECT * FROM read_watermarks_v2(ARRAY['d1'], ARRAY['b1'])")
    assert (watermark["seq"], watermark["missing"]) == (1, [])
    assert fleet.run("SELECT 1 FROM outbox WHERE topic = 'dead-letter'") == []


def test_record_fixes__a_late_fix_of_the_shift__is_kept_after_the_shift(
    fleet: Fleet, shift: Shift
) -> None:
    late = fix(shift.on_at + minutes(5), 1, now())
    assert fleet.record([late]) == []
    assert fleet.driver()["fix_at"] == shift.on_at + minutes(5)


def test_record_fixes__a_late_fix_from_before_the_shift__is_dropped_on_duty(
    fleet: Fleet, shift: Shift
) -> None:
    fleet.command_driver("d1", "on_duty")
    late = fix(shift.on_at - minutes(5), 1, now())
    [outcome] = fleet.record([late])
    assert (outcome.outcome, outcome.reason) == DROPPED


def test_record_fixes__from_before_the_first_command__is_kept(fleet: Fleet, shift: Shift) -> None:
    assert fleet.record([fix(shift.first_at - minutes(5), 1, now())]) == []


def test_record_fixes__never_on_duty__is_kept(fleet: Fleet) -> None:
    fleet.add_drivers("d3", on_duty=False)
    assert fleet.record([make_fix("d3")]) == []


def test_record_fixes__on_a_break__is_kept(fleet: Fleet) -> None:
    fleet.command_driver("d1", "off_duty")
    fleet.command_driver("d1", "on_duty")
    fleet.command_driver("d1", "on_break")
    assert fleet.record([make_fix()]) == []


def test_record_fixes__off_duty_with_an_open_order__is_kept(fleet: Fleet) -> None:
    """A revoked driver keeps the order under way."""
    fleet.assigned_order("d1")
    fleet.run("SELECT 1 FROM change_device_v2('driver', 'd1', 'revoke', 'test', NULL, NULL)")
    assert fleet.driver()["duty"] == "off_duty"
    assert fleet.record([make_fix(fix_at=now())]) == []


def test_record_fixes__a_fast_clock_off_duty__is_judged_by_its_arrival(
    fleet: Fleet, shift: Shift
) -> None:
    """Whatever the phone says, it was taken before it arrived."""
    [outcome] = fleet.record([fix(shift.on_at + minutes(1), 1, shift.on_at - minutes(1))])
    assert (outcome.outcome, outcome.reason) == DROPPED


def test_record_fixes__any_order_of_copies__ends_in_the_same_history(
    fleet: Fleet, shift: Shift
) -> None:
    """One copy arrived off duty and one on duty, of a phone that is fast by a minute."""
    fix_at = shift.on_at + minutes(1)
    early = fix(fix_at, 1, shift.on_at - timedelta(seconds=1))
    late = fix(fix_at, 1, shift.on_at + timedelta(seconds=1))
    again = fix(fix_at, 1, shift.on_at + timedelta(seconds=9))
    seen = set()
    for number, copies in enumerate(permutations([early, late, again])):
        boot = f"order{number}"
        for row in copies:
            fleet.record([(*row[:2], boot, *row[3:])])
        [kept] = fleet.run("SELECT seq, received_at FROM fix_history WHERE boot = %s", boot)
        seen.add((kept["seq"], kept["received_at"]))
    assert seen == {(1, shift.on_at + timedelta(seconds=1))}


def test_record_fixes__a_batch_of_a_whole_day__keeps_what_was_taken_on_duty(
    fleet: Fleet, shift: Shift
) -> None:
    at = [shift.earlier_off_at + minutes(30 * n) for n in range(12)]
    rows = numbered([fix(one, seq, now()) for seq, one in enumerate(at, 1)])
    expected = [n for n, one in enumerate(at, 1) if shift.on_at <= one < shift.off_at]
    outcomes = fleet.record(rows)
    assert stored(fleet) == expected
    assert {(o.outcome, o.reason) for o in outcomes} == {DROPPED}
    [watermark] = fleet.run("SELECT * FROM read_watermarks_v2(ARRAY['d1'], ARRAY['b1'])")
    assert (watermark["seq"], watermark["missing"]) == (12, [])
    again = fleet.record(rows)
    assert stored(fleet) == expected
    assert {(o.outcome, o.reason) for o in again} == {DROPPED, ("duplicate", None)}


def test_record_fixes__without_boot_and_seq__is_dropped_off_duty(
    fleet: Fleet, shift: Shift
) -> None:
    nameless = make_fix(boot=None, seq=None, fix_at=shift.off_at + minutes(5))
    assert fleet.record([nameless]) == [Outcome(0, *DROPPED)]
    assert stored(fleet) == []


def test_record_fixes__parked_and_off_duty__leaves_no_dead_letter(
    fleet: Fleet, shift: Shift
) -> None:
    with fleet.database.connect() as holder:
        holder.execute("SELECT FROM driver_state WHERE driver_id = 'd1' FOR UPDATE")
        [outcome] = fleet.record([fix(shift.off_at + minutes(5), 1)])
        assert outcome.outcome == "parked"
    fleet.run("SELECT record_parked_v1()")
    assert stored(fleet) == []
    assert fleet.run("SELECT 1 FROM parked_fix") == []
    assert fleet.run("SELECT 1 FROM outbox WHERE topic = 'dead-letter'") == []


def test_record_fixes__too_old_and_off_duty__is_no_dead_letter(fleet: Fleet, shift: Shift) -> None:
    old = fix(shift.earlier_off_at + minutes(5), 1, shift.off_at + timedelta(days=3))
    [outcome] = fleet.record([old])
    assert (outcome.outcome, outcome.reason) == DROPPED


def test_record_fixes__a_policy_that_keeps_them__stores(fleet: Fleet, shift: Shift) -> None:
    fleet.run("UPDATE limits SET keep_off_duty_positions = true")
    assert fleet.record([fix(shift.off_at + minutes(5), 1)]) == []


def test_record_fixes__evidence_of_a_late_shift__is_kept(fleet: Fleet, shift: Shift) -> None:
    """Both fixes arrive when the driver is off duty; the order's window holds them."""
    fleet.command_driver("d1", "on_duty")
    order_id = fleet.assigned_order("d1")
    fleet.backdate_assignment(order_id, shift.on_at)
    place = {"lon_deg": AWAY.lon_deg, "lat_deg": AWAY.lat_deg}
    rows = [fix(shift.on_at + minutes(n), n, now(), **place) for n in (1, 2)]
    fleet.command_order(order_id, "cancel")
    fleet.command_driver("d1", "off_duty")
    assert fleet.record(numbered(rows)) == []


def test_driver_command__the_clock_is_set_back__no_command_precedes_an_earlier_one(
    fleet: Fleet,
) -> None:
    ahead = now() + timedelta(hours=1)
    fleet.run("UPDATE driver_command SET commanded_at = %s WHERE driver_id = 'd1'", ahead)
    fleet.command_driver("d1", "off_duty")
    fleet.command_driver("d1", "on_duty")
    rows = fleet.run("SELECT commanded_at FROM driver_command WHERE driver_id = 'd1'")
    assert [row["commanded_at"] for row in rows] == [ahead] * 3
    assert fleet.record([fix(ahead, 1)]) == []
