"""The defects of recorded fixes; and a shift of a whole day changes no outcome."""

from __future__ import annotations

from datetime import timedelta

from bench.recordings.traces import LATENESS_S, Place, Trace, TraceFix, phone_days
from tests.traces.defects import FUTURE_S, defects_of, expected_outcome
from tests.traces.final_state import compare
from tests.traces.marks import needs_traces
from tests.traces.orders import now_ms
from tests.traces.phones import compare_outcomes

HERE, FAR = Place(11.25, 43.77), Place(11.25, 43.97)
NOON_S = 1_700_000_000.0


def fix(at_s: float, late_s: float = 0.1, place: Place = HERE, accuracy_m: float = 5) -> TraceFix:
    return TraceFix(NOON_S + at_s, NOON_S + at_s + late_s, place, accuracy_m)


def day(*fixes: TraceFix) -> Trace:
    return Trace("phones/x", fixes, NOON_S, fixes[-1].written_s)


@needs_traces
def test_phone_days__moved_as_a_whole__keep_their_outcomes() -> None:
    """All fixes of a day are sent at its end, later than they were. A fix that was on time is still
    younger than 24 h, and one that was too old is still too old.
    """
    for trace in phone_days():
        ends_at = now_ms()
        for one in trace.fixes:
            age_s = (ends_at - trace.moved(one.fix_s, ends_at)).total_seconds()
            late = "rejected too_old" if age_s > LATENESS_S else ""
            early = "rejected in_the_future" if age_s < -FUTURE_S else ""
            result = late or early
            assert expected_outcome(one).startswith("rejected") == bool(result), (
                trace.name,
                one.late_s,
            )


def test_moved__date_without_clock__is_not_shifted() -> None:
    unset = TraceFix(0.0, NOON_S + 5, HERE)
    trace = day(fix(0), unset, fix(10, late_s=2))
    ends_at = now_ms()
    assert trace.moved(trace.ends_s, ends_at) == ends_at
    assert trace.moved(NOON_S, ends_at) == ends_at - timedelta(seconds=12)
    assert trace.moved(0.0, ends_at).year == 1970


def test_defects_of__each_defect__is_found_once() -> None:
    unset = TraceFix(0.0, NOON_S + 6, HERE)
    fixes = (fix(0), fix(0), fix(5, late_s=-2), unset, fix(2, late_s=100), fix(8, accuracy_m=900))
    found = defects_of(day(*fixes, fix(9, place=FAR)))
    assert {defect: seqs for defect, seqs in found.items() if seqs} == {
        "dated_1970": {4},
        "stored_minutes_late": {5},
        "dated_ahead": {3},
        "out_of_order": {4, 5},
        "duplicate": {2},
        "inaccurate": {6},
        "cell_jump": {7},
        "flagged_jump": {7},
    }


def test_compare__row_differs_or_is_missing__is_reported() -> None:
    rows = [{"driver_id": "d1", "seq": 1}, {"driver_id": "d1", "seq": 2}]
    assert compare("x", {"history": list(rows)}, {"history": rows}) == []
    assert len(compare("x", {"history": rows[:1]}, {"history": rows})) == 1
    assert len(compare("x", {"history": [rows[0], rows[0]]}, {"history": rows})) == 1


def test_compare_outcomes__lost_fix__is_reported() -> None:
    trace = day(fix(0), fix(5))
    assert compare_outcomes({"d": trace}, {"d": {1: "committed", 2: "committed"}}) == []
    assert compare_outcomes({"d": trace}, {"d": {1: "committed"}}) == [
        "d 2: LOST, expected committed"
    ]
