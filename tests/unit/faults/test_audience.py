"""The faults' viewers: what they make of a stream's lines."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

from tests.faults.audience import Viewer
from tests.faults.viewers import p95


def data_of(fix_at: datetime | None) -> bytes:
    position = None if fix_at is None else {"properties": {"fix_at": fix_at.isoformat()}}
    return b"data: " + json.dumps({"position": position}).encode() + b"\n"


def test_viewer__retry_and_id__are_kept_for_the_next_connection() -> None:
    viewer = Viewer("o1")
    for line in (b"e\r\n", b"retry: 1750\n", b"\r\n", b"id: 7\n", b"event: snapshot\n", b":\n"):
        viewer.take(line)
    assert (viewer.retry_s, viewer.last_id) == (1.75, b"7")
    assert not viewer.sees


def test_viewer__first_data_of_a_connection__is_when_it_sees() -> None:
    viewer = Viewer("o1", opened_at=time.monotonic())
    viewer.take(data_of(None))
    first = viewer.first_frame_at
    viewer.take(data_of(None))
    assert viewer.sees
    assert viewer.first_frame_at == first
    viewer.lost_at.append(time.monotonic())
    assert not viewer.sees


def test_viewer__newer_positions__are_timed_and_older_ones_are_not() -> None:
    viewer = Viewer("o1")
    fix_at = datetime.now(UTC) - timedelta(seconds=5)
    viewer.take(data_of(fix_at))
    viewer.take(data_of(fix_at - timedelta(seconds=1)))
    [(_, lag_s)] = viewer.lags
    assert lag_s >= 5


def test_p95__of_a_hundred__is_the_ninety_fifth() -> None:
    assert p95(range(1, 101)) == 95
