"""Read recorded traces of real phones and cars from `../shared/data/gps`, beside the project.

phones/d07    emission_phones: one phone-day, with the time of each fix and of its storage
goal/711      goal_delivery_agents: one run of a delivery van, moved to Florence's centre
munich/1s     barefoot_munich: one car at 1 Hz; munich/15s is the same drive, every 15 s
"""

from __future__ import annotations

import csv
import gzip
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from doorstep import geo
from simulators.tracks import read_track

GPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "gps"
NO_DAY_S = 1_600_000_000
NO_CLOCK_S = 1e9  # before 2001: the phone had no clock
FIELDS = ("accuracy_m", "speed_mps", "heading_deg", "altitude_m")
LATENESS_S = 86_400.0  # the greatest age of an accepted fix


class Place(NamedTuple):
    """A place, longitude first."""

    lon_deg: float
    lat_deg: float


FLORENCE = Place(11.2558, 43.7731)


@dataclass(frozen=True, slots=True)
class TraceFix:
    """A recorded fix: its time, and the time when the phone stored it (epoch seconds)."""

    fix_s: float
    written_s: float
    place: Place
    accuracy_m: float | None = None
    speed_mps: float | None = None
    heading_deg: float | None = None
    altitude_m: float | None = None

    @property
    def late_s(self) -> float:
        """The age when it was stored; negative if its date was in the future."""
        return self.written_s - self.fix_s

    @property
    def at(self) -> datetime:
        """The time of the fix."""
        return datetime.fromtimestamp(self.fix_s, UTC)

    def values(self) -> dict[str, float]:
        """Return the optional fields by the contract's names."""
        return {name: value for name in FIELDS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Trace:
    """A recording in order of arrival.

    It begins with the first fix that was not too old when it was stored, and ends when the last fix
    was stored.
    """

    name: str
    fixes: Sequence[TraceFix]
    begins_s: float
    ends_s: float

    def moved(self, at_s: float, ends_at: datetime) -> datetime:
        """Shift an instant of the trace so that the trace ends at `ends_at`.

        Dates from before the phone had a clock are not shifted.
        """
        if at_s < NO_CLOCK_S:
            return datetime.fromtimestamp(at_s, UTC)
        return ends_at - timedelta(seconds=round(self.ends_s - at_s, 3))


@cache
def read_trace(name: str) -> Trace:
    """Read a trace by name."""
    kind, _, which = name.partition("/")
    if kind == "goal":
        rows = _goal_run(which)
    elif kind == "goal+speed":
        rows = with_speeds(_goal_run(which))
    else:
        rows = {"phones": _phone_days, "munich": _munich}[kind]()[which]
    # sorted() is stable: rows stored in the same instant keep the phone's order
    fixes = sorted(rows, key=lambda fix: fix.written_s)
    begins_s = min(fix.fix_s for fix in fixes if fix.late_s <= LATENESS_S)
    return Trace(name, fixes, begins_s, fixes[-1].written_s)


def phone_days() -> list[Trace]:
    """Read the 14 phone-days."""
    return [read_trace(f"phones/{device}") for device in sorted(_phone_days())]


def metres(place: Place, other: Place) -> float:
    """Metres between two places a city apart."""
    return geo.distance_m(place, other)


def moved(place: Place, east_m: float, north_m: float) -> Place:
    """The place so many metres away."""
    return Place(*geo.offset(place, east_m, north_m))


@cache
def _phone_days() -> dict[str, list[TraceFix]]:
    days: dict[str, list[tuple[int, TraceFix]]] = defaultdict(list)
    for row in _rows(GPS / "emission_phones" / "fixes.csv.gz"):
        values = (row["accuracy_m"], row["speed_mps"], row["bearing_deg"], row["altitude_m"])
        accuracy_m, speed_mps, heading_deg, altitude_m = (
            None if value == "" else float(value) for value in values
        )
        fix = TraceFix(
            float(row["fix_ts"]),
            float(row["write_ts"]),
            Place(float(row["lon"]), float(row["lat"])),
            accuracy_m,
            # iOS writes -1 for a speed or a course that it does not know
            speed_mps if speed_mps is not None and speed_mps >= 0 else None,
            heading_deg % 360 if heading_deg is not None and heading_deg >= 0 else None,
            altitude_m,
        )
        days[row["device"]].append((int(row["seq"]), fix))
    # some files are newest first: in the order of the phone's own numbers where those rise
    return {device: _oldest_first(rows) for device, rows in days.items()}


def _oldest_first(rows: list[tuple[int, TraceFix]]) -> list[TraceFix]:
    fixes = [fix for _, fix in sorted(rows, key=lambda row: row[0])]
    return fixes[::-1] if fixes[0].written_s > fixes[-1].written_s else fixes


@cache
def goal_rows() -> dict[str, list[tuple[float, float, float, str]]]:
    """The runs of goal_delivery_agents: (t_s, x_m, y_m, OnFoot or Driving) of each fix."""
    runs: dict[str, list[tuple[float, float, float, str]]] = defaultdict(list)
    for row in _rows(GPS / "goal_delivery_agents" / "fixes.csv.gz"):
        place = (float(row["x_m"]), float(row["y_m"]))
        runs[row["chunk"]].append((float(row["t_s"]), *place, row["label"]))
    return runs


def _goal_run(run: str) -> list[TraceFix]:
    """A run's fixes: its plane is laid on Florence, its clock begins at no particular instant."""
    return [
        TraceFix(NO_DAY_S + t_s, NO_DAY_S + t_s + 0.5, moved(FLORENCE, x_m, y_m))
        for t_s, x_m, y_m, _ in goal_rows()[run]
    ]


def with_speeds(fixes: list[TraceFix]) -> list[TraceFix]:
    """Give each fix the lesser of the speeds to its two neighbours."""
    steps = [metres(a.place, b.place) / max(b.fix_s - a.fix_s, 0.1) for a, b in pairwise(fixes)]
    lesser = [min(both) for both in zip([math.inf, *steps], [*steps, math.inf], strict=True)]
    return [replace(fix, speed_mps=mps) for fix, mps in zip(fixes, lesser, strict=True)]


@cache
def _munich() -> dict[str, list[TraceFix]]:
    drives = {}
    for name in ("1s", "15s"):
        number = int(name.removesuffix("s"))
        points = read_track(GPS / "barefoot_munich" / f"x0001-{number:03}.csv")
        drives[name] = [
            TraceFix(
                point.at.timestamp(),
                point.at.timestamp() + 0.5,
                Place(point.values["lon_deg"], point.values["lat_deg"]),
                heading_deg=point.values.get("heading_deg"),
            )
            for point in points
        ]
    return drives


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
