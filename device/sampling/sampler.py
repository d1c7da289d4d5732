"""One driver's stream of fixes, thinned as the staff has said."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import atan2, cos, degrees, radians
from typing import Any

from device.sampling.policies import ObservedFix, is_news, moved_m, observed_fix_of
from doorstep.sampling import SamplingPolicy

Fix = Mapping[str, Any]

MOTION_OVER_S = 3.0  # speed and heading, where the phone tells none, are worked out over so long
MOTION_WITHIN_S = 12.0  # and never over longer


class Sampler:
    """Says which fixes go out when. `pace`: how many of the rules' seconds pass in one of ours.

    Off by default: then everything goes out. Time is the fixes' own.
    """

    def __init__(self, report: SamplingPolicy | None = None, pace: float = 1.0) -> None:
        self.report = report or SamplingPolicy()
        self.pace = pace
        self._last: ObservedFix | None = None  # that went out
        self._previous: ObservedFix | None = None  # that was taken
        self._recent: deque[ObservedFix] = deque(maxlen=16)  # newest last
        self._kept: list[Fix] = []  # go along with the next
        self._kept_at_s = 0.0

    @property
    def batch_s(self) -> float:
        """How long a fix may wait for others, in our seconds."""
        return self.report.batch_s / self.pace

    def follow(self, report: SamplingPolicy) -> None:
        """Report like this from now on."""
        self.report = report

    def take(self, fix: Fix) -> list[Fix]:
        """The phone has taken a fix: return what goes out now, the oldest first."""
        if self.report.mode == "dead_reckoning":
            fix = self._with_motion(fix)
        now = observed_fix_of(fix)
        if now is None:
            return [fix]
        self._recent.append(now)
        last, previous, self._previous = self._last, self._previous, now
        if last is None or previous is None or now.at_s <= previous.at_s:
            return self._send(fix, now)  # the first, or the clock was set
        # Waiting for one more fix, taken as long after this one, must not miss the heartbeat.
        next_at_s = now.at_s + (now.at_s - previous.at_s)
        overdue = next_at_s - last.at_s > self.report.heartbeat_s / self.pace
        if overdue or is_news(self.report, last, now, self.pace):
            return self._send(fix, now)
        keep_s = self.report.keep_every_s / self.pace
        if keep_s > 0 and now.at_s - self._kept_at_s >= keep_s:
            self._kept.append(fix)
            self._kept_at_s = now.at_s
        return []

    def _with_motion(self, fix: Fix) -> Fix:
        """The fix with a speed and a heading, from the fixes before it if the phone tells none."""
        now = observed_fix_of(fix)
        if now is None or (fix.get("heading_deg") is not None and "speed_mps" in fix):
            return fix
        over_s, within_s = MOTION_OVER_S / self.pace, MOTION_WITHIN_S / self.pace
        for before in reversed(self._recent):
            apart_s = now.at_s - before.at_s
            if over_s <= apart_s <= within_s:
                return {
                    **fix,
                    "speed_mps": round(min(500.0, moved_m(before, now) / apart_s), 1),
                    "heading_deg": round(_heading_deg(before, now)) % 360,
                }
        return fix

    def _send(self, fix: Fix, now: ObservedFix) -> list[Fix]:
        due = [*self._kept, fix]
        self._last, self._kept, self._kept_at_s = now, [], now.at_s
        return due


def _heading_deg(before: ObservedFix, now: ObservedFix) -> float:
    east = (now.lon_deg - before.lon_deg) * cos(radians(now.lat_deg))
    return degrees(atan2(east, now.lat_deg - before.lat_deg))
