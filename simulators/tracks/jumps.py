"""Points that are weeks away from the rest of a track.

GPS counts weeks with ten bits. A receiver that takes them wrong dates its fixes 1,024 weeks (7,168
days) early; others start in 1970 until they have a fix. A replay would pause for the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

from simulators.tracks.points import TrackPoint

JUMP = timedelta(days=14)  # between neighbours in time; a holiday is no recording
ROLLOVER = timedelta(weeks=1024)


def leave_out_jumps(points: Sequence[TrackPoint]) -> tuple[list[TrackPoint], list[str]]:
    """Keep the longest part of a sorted track without a jump, and describe the others."""
    starts = [
        index
        for index, (before, after) in enumerate(pairwise(points), start=1)
        if after.at - before.at > JUMP
    ]
    parts = [
        list(points[start:end])
        for start, end in zip([0, *starts], [*starts, len(points)], strict=True)
    ]
    kept = max(parts, key=lambda part: (len(part), part[0].at))
    return kept, [_describe(part, kept) for part in parts if part is not kept]


def _describe(part: Sequence[TrackPoint], kept: Sequence[TrackPoint]) -> str:
    is_early = part[-1].at < kept[0].at
    away = kept[0].at - part[-1].at if is_early else part[0].at - kept[-1].at
    count = "1 point" if len(part) == 1 else f"{len(part):,} points"
    dated = f"{count} left out, dated {part[0].at:%Y-%m-%d %H:%M:%S}"
    shifted_at = part[0].at + (ROLLOVER if is_early else -ROLLOVER)
    if kept[0].at - JUMP <= shifted_at <= kept[-1].at + JUMP:
        direction = "early" if is_early else "late"
        return f"{dated}: {ROLLOVER.days:,} days {direction}, a GPS week rollover"
    return f"{dated}: {away.days:,} days {'before' if is_early else 'after'} the rest"
