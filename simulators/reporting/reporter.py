"""One driver's stream of fixes, thinned as the staff has said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doorstep.reporting import Report
from simulators.reporting.policies import Seen, is_news, seen_of

Fix = Mapping[str, Any]


class Reporter:
    """Says which fixes go out when. `pace`: how many of the rules' seconds pass in one of ours.

    Off by default: then everything goes out. Time is the fixes' own.
    """

    def __init__(self, report: Report | None = None, pace: float = 1.0) -> None:
        self.report = report or Report()
        self.pace = pace
        self._last: Seen | None = None  # that went out
        self._previous: Seen | None = None  # that was taken
        self._kept: list[Fix] = []  # go along with the next
        self._kept_at_s = 0.0

    @property
    def batch_s(self) -> float:
        """How long a fix may wait for others, in our seconds."""
        return self.report.batch_s / self.pace

    def follow(self, report: Report) -> None:
        """Report like this from now on."""
        self.report = report

    def take(self, fix: Fix) -> list[Fix]:
        """The phone has taken a fix: return what goes out now, the oldest first."""
        now = seen_of(fix)
        if now is None:
            return [fix]
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

    def _send(self, fix: Fix, now: Seen) -> list[Fix]:
        due = [*self._kept, fix]
        self._last, self._kept, self._kept_at_s = now, [], now.at_s
        return due
