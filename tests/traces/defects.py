"""The defects of fixes in a real phone-day, and the outcome that each fix must have. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from bench.recordings.traces import LATENESS_S, NO_CLOCK_S, Trace, TraceFix
from tracking_api.history.features import flag_jumps
from tracking_api.track.visibility import Position

FUTURE_S = 120.0
INACCURATE_M = 200.0

DEFECTS = {
    "dated_1970": "dated 1970-01-01: the phone had no clock yet",
    "stored_days_late": "stored more than 24 h late (38.6 h)",
    "stored_hours_late": "stored 1 to 24 h late",
    "stored_minutes_late": "stored 1 to 60 min late",
    "dated_ahead": "dated after its storage: the phone's two clocks differ (up to 3.5 s)",
    "out_of_order": "stored after a newer fix",
    "duplicate": "an exact copy of an earlier row (same time, place and values)",
    "inaccurate": "from a cell tower: accuracy worse than 200 m",
    "cell_jump": "a jump over 70 m/s, quarantined fixes included",
    "flagged_jump": "a jump over 70 m/s without quarantined fixes: flagged by GET /history",
}


@dataclass(slots=True)
class DefectRow:
    """One row of the table: the number of fixes with a defect, and their outcomes."""

    defect: str
    what: str
    fixes: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)  # over MQTT
    http: dict[str, int] = field(default_factory=dict)  # the same fixes over HTTP

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def expected_outcome(fix: TraceFix) -> str:
    """Return the contract's outcome for a fix that arrives when its phone stores it."""
    if fix.fix_s < NO_CLOCK_S or fix.late_s > LATENESS_S:
        return "rejected too_old"
    if fix.late_s < -FUTURE_S:
        return "rejected in_the_future"
    if fix.accuracy_m is not None and fix.accuracy_m > INACCURATE_M:
        return "quarantined inaccurate"
    return "committed"


def defects_of(trace: Trace) -> dict[str, set[int]]:
    """Return the seqs (from 1, in order of arrival) of a day's fixes with each defect."""
    found: dict[str, set[int]] = {defect: set() for defect in DEFECTS}
    seen: set[object] = set()
    newest_s = 0.0
    for seq, fix in enumerate(trace.fixes, 1):
        if fix.fix_s < NO_CLOCK_S:
            found["dated_1970"].add(seq)
        elif fix.late_s > LATENESS_S:
            found["stored_days_late"].add(seq)
        elif fix.late_s > 3600:
            found["stored_hours_late"].add(seq)
        elif fix.late_s > 60:
            found["stored_minutes_late"].add(seq)
        elif fix.late_s < 0:
            found["dated_ahead"].add(seq)
        if fix.fix_s < newest_s:
            found["out_of_order"].add(seq)
        newest_s = max(newest_s, fix.fix_s)
        content = (round(fix.fix_s, 3), fix.place, tuple(fix.values().items()))
        if content in seen:
            found["duplicate"].add(seq)
        seen.add(content)
        if fix.accuracy_m is not None and fix.accuracy_m > INACCURATE_M:
            found["inaccurate"].add(seq)
    found["cell_jump"] = jumps_of(fixes_with_outcome(trace, "committed", "quarantined inaccurate"))
    found["flagged_jump"] = jumps_of(fixes_with_outcome(trace, "committed"))
    return found


def fixes_with_outcome(trace: Trace, *outcomes: str) -> list[tuple[int, TraceFix]]:
    """Return the fixes of a day, with their seqs, that must have one of these outcomes."""
    return [
        (seq, fix) for seq, fix in enumerate(trace.fixes, 1) if expected_outcome(fix) in outcomes
    ]


def jumps_of(fixes: Sequence[tuple[int, TraceFix]]) -> set[int]:
    """Return the seqs of the fixes that GET /history flags as jumps."""
    fixes = sorted(fixes, key=lambda one: (one[1].fix_s, one[0]))
    trail = [Position(fix.at, fix.at, fix.place.lon_deg, fix.place.lat_deg) for _, fix in fixes]
    return {seq for (seq, _), jump in zip(fixes, flag_jumps(trail), strict=True) if jump}


def table_of(
    days: Mapping[str, Trace],
    over_mqtt: Mapping[str, Mapping[int, str]],
    over_http: Mapping[str, Mapping[int, str]],
) -> list[DefectRow]:
    """Count the outcomes of each defect's fixes. Outcomes are by day and seq."""
    rows = {defect: DefectRow(defect, what) for defect, what in DEFECTS.items()}
    for name, day in days.items():
        for defect, seqs in defects_of(day).items():
            row = rows[defect]
            row.fixes += len(seqs)
            for seq in seqs:
                for outcomes, tally in ((over_mqtt, row.outcomes), (over_http, row.http)):
                    if name in outcomes:
                        outcome = outcomes[name].get(seq, "LOST")
                        tally[outcome] = tally.get(outcome, 0) + 1
    return list(rows.values())
