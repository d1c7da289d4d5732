"""Applies a sampling policy to one driver's fixes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import atan2, cos, degrees, radians
from typing import Any

from device.sampling.policies import ObservedFix, is_news, moved_m, observed_fix_of
from doorstep.sampling import SamplingPolicy

Fix = Mapping[str, Any]

# Without speed and heading from the phone, they are computed from a fix of this age.
MOTION_MIN_S, MOTION_MAX_S = 3.0, 12.0


class Sampler:
    """Selects the fixes to send, by the fixes' own time. The default policy sends all.

    `policy` may be replaced at any time. `pace` divides its durations: a simulation ten times as
    fast as real time has pace 10.
    """

    def __init__(self, policy: SamplingPolicy | None = None, pace: float = 1.0) -> None:
        self.policy = policy or SamplingPolicy()
        self.pace = pace
        self._last: ObservedFix | None = None  # the last one sent
        self._previous: ObservedFix | None = None  # the last one observed
        self._recent: deque[ObservedFix] = deque(maxlen=16)  # newest last
        self._kept: list[Fix] = []  # sent along with the next one
        self._kept_at_s = 0.0

    @property
    def batch_s(self) -> float:
        """How long a fix may wait for others of its batch, in real seconds."""
        return self.policy.batch_s / self.pace

    def observe(self, fix: Fix) -> list[Fix]:
        """Return the fixes to send now, oldest first, given a new one."""
        if self.policy.mode == "dead_reckoning":
            fix = self._with_motion(fix)
        now = observed_fix_of(fix)
        if now is None:
            return [fix]
        self._recent.append(now)
        last, previous, self._previous = self._last, self._previous, now
        if last is None or previous is None or now.at_s <= previous.at_s:
            return self._send(fix, now)  # the first one, or the clock was set back
        # Send now if waiting for one more fix, at the same interval, would miss the heartbeat.
        next_at_s = now.at_s + (now.at_s - previous.at_s)
        overdue = next_at_s - last.at_s > self.policy.heartbeat_s / self.pace
        if overdue or is_news(self.policy, last, now, self.pace):
            return self._send(fix, now)
        keep_s = self.policy.keep_every_s / self.pace
        if keep_s > 0 and now.at_s - self._kept_at_s >= keep_s:
            self._kept.append(fix)
            self._kept_at_s = now.at_s
        return []

    def _with_motion(self, fix: Fix) -> Fix:
        """Add speed and heading, computed from an earlier fix, unless the phone measured them."""
        now = observed_fix_of(fix)
        if now is None or (fix.get("heading_deg") is not None and "speed_mps" in fix):
            return fix
        min_s, max_s = MOTION_MIN_S / self.pace, MOTION_MAX_S / self.pace
        for before in reversed(self._recent):
            age_s = now.at_s - before.at_s
            if min_s <= age_s <= max_s:
                return {
                    **fix,
                    "speed_mps": round(min(500.0, moved_m(before, now) / age_s), 1),
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
