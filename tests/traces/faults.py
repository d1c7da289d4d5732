"""What is wrong with the fixes of a real phone-day, and what must become of each. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from tests.traces.data import LATENESS_S, NO_CLOCK_S, Trace, TraceFix
from tracking_api.history.features import flag_jumps
from tracking_api.track.visibility import Position

FUTURE_S = 120.0
INACCURATE_M = 200.0

FAULTS = {
    "dated_1970": "dated 1970-01-01: the phone had no clock yet",
    "stored_days_late": "stored more than 24 h late (38.6 h)",
    "stored_hours_late": "stored 1 to 24 h late",
    "stored_minutes_late": "stored 1 to 60 min late",
    "dated_ahead": "dated after its own storing: the phone's two clocks disagree (up to 3.5 s)",
    "out_of_order": "stored after a younger one",
    "duplicate": "an exact copy of an earlier row (same time, place and values)",
    "inaccurate": "from a cell tower: accuracy worse than 200 m",
    "cell_jump": "a jump over 70 m/s from the line so far, all fixes counted",
    "flagged_jump": "a jump still, with the quarantined fixes left out: flagged by GET /history",
}


@dataclass(slots=True)
class FaultRow:
    """One line of the table: how many fixes of all days, and what became of them."""

    fault: str
    what: str
    fixes: int = 0
    fates: dict[str, int] = field(default_factory=dict)  # over MQTT
    http: dict[str, int] = field(default_factory=dict)  # the same fixes over HTTP

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def fate_of(fix: TraceFix) -> str:
    """What the contract says of a fix that arrives when its phone stored it."""
    if fix.fix_s < NO_CLOCK_S or fix.late_s > LATENESS_S:
        return "rejected too_old"
    if fix.late_s < -FUTURE_S:
        return "rejected in_the_future"
    if fix.accuracy_m is not None and fix.accuracy_m > INACCURATE_M:
        return "quarantined inaccurate"
    return "committed"


def faults_of(trace: Trace) -> dict[str, set[int]]:
    """The seqs (from 1, in order of arrival) of a day's fixes with each fault."""
    found: dict[str, set[int]] = {fault: set() for fault in FAULTS}
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
    found["cell_jump"] = jumps_of(fixes_with(trace, "committed", "quarantined inaccurate"))
    found["flagged_jump"] = jumps_of(fixes_with(trace, "committed"))
    return found


def fixes_with(trace: Trace, *fates: str) -> list[tuple[int, TraceFix]]:
    """The fixes of a day, with their seqs, that must meet one of these fates."""
    return [(seq, fix) for seq, fix in enumerate(trace.fixes, 1) if fate_of(fix) in fates]


def jumps_of(fixes: Sequence[tuple[int, TraceFix]]) -> set[int]:
    """The seqs of the fixes that nobody can have travelled to, as GET /history flags them."""
    fixes = sorted(fixes, key=lambda one: (one[1].fix_s, one[0]))
    trail = [Position(fix.at, fix.at, fix.place.lon_deg, fix.place.lat_deg) for _, fix in fixes]
    return {seq for (seq, _), jump in zip(fixes, flag_jumps(trail), strict=True) if jump}


def table_of(
    days: Mapping[str, Trace],
    over_mqtt: Mapping[str, Mapping[int, str]],
    over_http: Mapping[str, Mapping[int, str]],
) -> list[FaultRow]:
    """Count what became of each fault's fixes. The fates are by day and seq."""
    rows = {fault: FaultRow(fault, what) for fault, what in FAULTS.items()}
    for name, day in days.items():
        for fault, seqs in faults_of(day).items():
            row = rows[fault]
            row.fixes += len(seqs)
            for seq in seqs:
                for fates, tally in ((over_mqtt, row.fates), (over_http, row.http)):
                    if name in fates:
                        fate = fates[name].get(seq, "LOST")
                        tally[fate] = tally.get(fate, 0) + 1
    return list(rows.values())
