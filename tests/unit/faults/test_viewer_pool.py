"""The faults' viewers: how they handle the lines of a stream."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

from tests.faults.viewer_pool import Viewer
from tests.faults.viewers import p95


def data_of(fix_at: datetime | None) -> bytes:
    position = None if fix_at is None else {"properties": {"fix_at": fix_at.isoformat()}}
    return b"data: " + json.dumps({"position": position}).encode() + b"\n"


def test_viewer__retry_and_id__are_kept_for_the_next_connection() -> None:
    viewer = Viewer("o1")
    for line in (b"e\r\n", b"retry: 1750\n", b"\r\n", b"id: 7\n", b"event: snapshot\n", b":\n"):
        viewer.read_line(line)
    assert (viewer.retry_s, viewer.last_id) == (1.75, b"7")
    assert not viewer.is_watching


def test_viewer__first_data_of_a_connection__starts_watching() -> None:
    viewer = Viewer("o1", opened_at=time.monotonic())
    viewer.read_line(data_of(None))
    first = viewer.first_frame_at
    viewer.read_line(data_of(None))
    assert viewer.is_watching
    assert viewer.first_frame_at == first
    viewer.lost_at.append(time.monotonic())
    assert not viewer.is_watching


def test_viewer__newer_positions__are_measured_and_older_ones_are_not() -> None:
    viewer = Viewer("o1")
    fix_at = datetime.now(UTC) - timedelta(seconds=5)
    viewer.read_line(data_of(fix_at))
    viewer.read_line(data_of(fix_at - timedelta(seconds=1)))
    [(_, lag_s)] = viewer.lags
    assert lag_s >= 5


def test_p95__of_a_hundred__is_the_ninety_fifth() -> None:
    assert p95(range(1, 101)) == 95
