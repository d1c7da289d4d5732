"""`python -m tests.traces.rules`: recall and false positives of rules for arrivals on 805 van runs.

The runs of goal_delivery_agents have labels for when the driver was on foot. For each rule:

    stops       the share that it finds of the places where the driver was on foot for a minute
    drive-bys   the share that it takes for arrivals of the places that the van passed at more than
                4 m/s without a stop nearby

with every fix (5 s apart), every third and every sixth. Each rule has the form "two fixes exist
such that …", so it does not depend on the order of arrival. The data have no speeds: a fix's speed
is the lesser of those to its neighbours. The rules are implemented here, not imported.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from bench.recordings.traces import GPS, goal_rows

ENTER_M, SPREAD_M = 60.0, 25.0
MIN_S, MAX_S = 30.0, 120.0
PASSED_MPS = 4.0
ON_FOOT_S = 60.0
HALT_S, HALT_M = 20.0, 20.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions on a pair of fixes, besides its distances."""

    name: str
    max_s: float = MAX_S
    middle_s: float | None = None  # a third fix between, this far from both
    slower_than_mps: float | None = None  # both fixes


RULES = (
    Rule("a pair, 30-120 s apart, within 25 m"),
    Rule("a pair, 30-60 s apart", max_s=60),
    Rule("with a third fix between, 10 s from both ends", middle_s=10),
    Rule("neither faster than 3 m/s: policy 1", slower_than_mps=3),
    Rule("neither faster than 2 m/s", slower_than_mps=2),
)


@dataclass(frozen=True, slots=True)
class Run:
    """A van's run in plane coordinates."""

    t_s: Floats
    x_m: Floats
    y_m: Floats
    on_foot: NDArray[np.bool_]

    @property
    def speed_mps(self) -> Floats:
        """The lesser of the speeds to the two neighbours."""
        steps = np.hypot(np.diff(self.x_m), np.diff(self.y_m)) / np.maximum(np.diff(self.t_s), 0.1)
        lesser: Floats = np.minimum(np.append(steps, np.inf), np.insert(steps, 0, np.inf))
        return lesser

    def stops(self) -> list[tuple[float, float]]:
        """Return the places where the driver was on foot for at least ON_FOOT_S."""
        places = []
        for is_on_foot, group in groupby(range(len(self.t_s)), key=lambda n: bool(self.on_foot[n])):
            part = list(group)
            if is_on_foot and self.t_s[part[-1]] - self.t_s[part[0]] >= ON_FOOT_S:
                places.append((float(np.median(self.x_m[part])), float(np.median(self.y_m[part]))))
        return places

    def drive_bys(self) -> list[tuple[float, float]]:
        """Return the places that the van passed without a stop nearby."""
        halts = [n for n in range(len(self.t_s)) if self._halts(n)]
        passed = [int(n) for n in np.flatnonzero(self.speed_mps > PASSED_MPS)]
        return [
            (float(self.x_m[n]), float(self.y_m[n]))
            for n in passed
            if 0 < n < len(self.t_s) - 1
            and self.t_s[n + 1] - self.t_s[n - 1] < 15
            and not (self._from(halts, n) < ENTER_M + SPREAD_M).any()
        ]

    def _halts(self, n: int) -> bool:
        end = int(np.searchsorted(self.t_s, self.t_s[n] + HALT_S))
        near = self._from(slice(n, end + 1), n) <= HALT_M
        return end < len(self.t_s) and bool(near.all())

    def _from(self, some: slice | list[int], n: int) -> Floats:
        apart_m: Floats = np.hypot(self.x_m[some] - self.x_m[n], self.y_m[some] - self.y_m[n])
        return apart_m

    def pairs(self, rule: Rule, every: int) -> NDArray[np.int64]:
        """Return the pairs of fixes that the rule accepts anywhere, as indices."""
        usable = np.arange(0, len(self.t_s), every)
        if rule.slower_than_mps is not None:
            usable = usable[self.speed_mps[usable] <= rule.slower_than_mps]
        t_s, x_m, y_m = self.t_s[usable], self.x_m[usable], self.y_m[usable]
        apart_s = t_s[None, :] - t_s[:, None]
        near = np.hypot(x_m[None, :] - x_m[:, None], y_m[None, :] - y_m[:, None]) <= SPREAD_M
        good = near & (apart_s >= MIN_S) & (apart_s <= rule.max_s)
        if rule.middle_s is not None:
            later = (near & (apart_s >= rule.middle_s)).astype(np.int64)
            until = (apart_s >= rule.middle_s).astype(np.int64)
            good &= later @ until > 0
        return usable[np.argwhere(good)]

    def arrives(self, pairs: NDArray[np.int64], place: tuple[float, float]) -> bool:
        """Say whether both fixes of a pair are within the radius of a place."""
        inside = np.hypot(self.x_m - place[0], self.y_m - place[1]) <= ENTER_M
        return bool(inside[pairs].all(axis=1).any())


def read_runs() -> list[Run]:
    """Read all runs."""
    runs = []
    for rows in goal_rows().values():
        ordered = sorted(rows)
        t_s, x_m, y_m = (np.array([row[n] for row in ordered]) for n in range(3))
        runs.append(Run(t_s, x_m, y_m, np.array([row[3] == "OnFoot" for row in ordered])))
    return runs


def measure(every: int) -> tuple[int, int, dict[str, tuple[int, int]]]:
    """Return the numbers of stops and drive-bys, and those that each rule takes for arrivals."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    totals = [0, 0]
    for run in read_runs():
        kinds = (run.stops(), run.drive_bys())
        for n, places in enumerate(kinds):
            totals[n] += len(places)
        for rule in RULES:
            pairs = run.pairs(rule, every)
            for n, places in enumerate(kinds):
                counts[rule.name][n] += sum(run.arrives(pairs, place) for place in places)
    return totals[0], totals[1], {name: (a, b) for name, (a, b) in counts.items()}


def main() -> int:
    """Print the table."""
    if not GPS.exists():
        print(f"there are no recordings in {GPS}", file=sys.stderr)
        return 2
    for every in (1, 3, 6):
        stops, passed, counts = measure(every)
        print(f"a fix every {5 * every} s: {stops:,} stops, {passed:,} drive-bys")
        for name, (found, wrong) in counts.items():
            print(f"  {name:<46} {found / stops:7.1%} {wrong:>5} = {wrong / passed:.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
