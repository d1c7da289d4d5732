"""Recorded traces as streams of fixes, and the arrivals on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.recordings.arrivals import Fixes, proves_arrival
from bench.recordings.labels import LABELS, Label
from bench.recordings.places import place_of
from bench.recordings.traces import Place, Trace, TraceFix, goal_rows, phone_days, read_trace
from doorstep.geo import M_PER_DEG

Floats = NDArray[np.float64]
Arrival = tuple[str, Place, float, float]
"""(what it is called, the place, from and to in epoch seconds)"""

USABLE_M = 200.0  # worse is quarantined
STOP_S = 45.0  # a stop on foot of this length is an arrival
AROUND_S = 600.0
ARRIVALS = {"at_restaurant", "at_customer"}


@dataclass(frozen=True, eq=False)
class Drive:
    """One run of one phone."""

    name: str
    fixes: Sequence[dict[str, Any]]
    arrivals: Sequence[Arrival] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From its first to its last fix."""
        return float(self.fixes[-1]["fix_at"] - self.fixes[0]["fix_at"]) / 1000

    def trailing_fix(self) -> dict[str, Any]:
        """A fix after the last one, to flush a batch."""
        last = self.fixes[-1]
        return {**last, "fix_at": last["fix_at"] + 30_000}

    def to_metres(self, lon_deg: float, lat_deg: float) -> tuple[float, float]:
        """East and north of the first fix."""
        first = self.fixes[0]
        shrink = math.cos(math.radians(first["lat_deg"]))
        east = (lon_deg - first["lon_deg"]) * M_PER_DEG * shrink
        return east, (lat_deg - first["lat_deg"]) * M_PER_DEG

    def truth(self, most_gap_s: float) -> tuple[Floats, Floats, Floats]:
        """The true position per second, without gaps: (epoch s, east, north)."""
        at = np.array([fix["fix_at"] / 1000 for fix in self.fixes])
        places = np.array([self.to_metres(fix["lon_deg"], fix["lat_deg"]) for fix in self.fixes])
        seconds = np.arange(at[0], at[-1], 1.0) if at[-1] > at[0] else at[:1]
        after = np.searchsorted(at, seconds, side="right").clip(1, len(at) - 1)
        is_known = (at[after] - at[after - 1]) <= most_gap_s
        seconds = seconds[is_known]
        return (
            seconds,
            np.interp(seconds, at, places[:, 0]),
            np.interp(seconds, at, places[:, 1]),
        )


def read_drives(goal_runs: int) -> dict[str, list[Drive]]:
    """Read the data sets, by name."""
    vans = [Drive(f"goal/{run}", *_goal_run(run)) for run in list(goal_rows())[:goal_runs]]
    days = [_drive_of(trace) for trace in phone_days()]
    return {
        "goal_delivery_agents": [drive for drive in vans if len(drive.fixes) > 1],
        "barefoot_munich": [_drive_of(read_trace("munich/1s"))],
        "emission_phones": days,
    }


@cache
def proved_arrivals(drive: Drive) -> list[Arrival]:
    """Those of its arrivals that the whole drive proves."""
    return [one for one in drive.arrivals if proves_arrival(drive.fixes, *one[1:])]


def missed_arrivals(drive: Drive, thinned: Fixes) -> tuple[int, list[str]]:
    """The number of proved arrivals, and the names of those that the sampled fixes do not prove."""
    proved = proved_arrivals(drive)
    return len(proved), [one[0] for one in proved if not proves_arrival(thinned, *one[1:])]


def _drive_of(trace: Trace) -> Drive:
    """A trace with each fix once, and none from before the phone had its clock."""
    begins_s = trace.begins_s
    once: dict[float, TraceFix] = {}
    for fix in trace.fixes:
        usable = fix.accuracy_m is None or fix.accuracy_m <= USABLE_M
        if fix.fix_s >= begins_s and usable:
            once.setdefault(fix.fix_s, fix)
    fixes = [_fix_json(once[at_s]) for at_s in sorted(once)]
    labels = [label for label in LABELS if label.trace == trace.name]
    return Drive(trace.name, fixes, [one for label in labels for one in _arrivals(trace, label)])


def _arrivals(trace: Trace, label: Label) -> list[Arrival]:
    spots = {"at_restaurant": label.restaurant, "at_customer": label.customer}
    first_s, last_s = label.span_s
    span = (trace.begins_s + first_s - AROUND_S, trace.begins_s + last_s + AROUND_S)
    return [
        (f"{label.name}: {state}", place_of(trace, spots[state]), *span)
        for state in label.expected
        if state in ARRIVALS
    ]


def _goal_run(run: str) -> tuple[list[dict[str, Any]], list[Arrival]]:
    """A run of a delivery van, and its stops on foot, as labelled in the data set."""
    fixes = [_fix_json(fix) for fix in read_trace(f"goal/{run}").fixes]
    stops: list[Arrival] = []
    on_foot: list[dict[str, Any]] = []
    for fix, (_, _, _, label) in zip(fixes, goal_rows()[run], strict=True):
        if label == "OnFoot":
            on_foot.append(fix)
            continue
        stops += _arrival_of_stop(on_foot)
        on_foot = []
    stops += _arrival_of_stop(on_foot)
    return fixes, stops


def _arrival_of_stop(on_foot: list[dict[str, Any]]) -> list[Arrival]:
    if not on_foot or on_foot[-1]["fix_at"] - on_foot[0]["fix_at"] < STOP_S * 1000:
        return []
    lon_deg = median(fix["lon_deg"] for fix in on_foot)
    lat_deg = median(fix["lat_deg"] for fix in on_foot)
    first_s, last_s = on_foot[0]["fix_at"] / 1000, on_foot[-1]["fix_at"] / 1000
    place = Place(lon_deg, lat_deg)
    return [(f"a stop of {last_s - first_s:.0f} s", place, first_s - 120, last_s + 120)]


def _fix_json(fix: TraceFix) -> dict[str, Any]:
    values = {name: value for name, value in fix.values().items() if name != "altitude_m"}
    if "speed_mps" not in values:
        values.pop("heading_deg", None)
    return {
        "fix_at": round(fix.fix_s * 1000),
        "lat_deg": round(fix.place.lat_deg, 7),
        "lon_deg": round(fix.place.lon_deg, 7),
        **values,
    }
