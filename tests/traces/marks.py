"""The mark of tests that need the recordings."""

from __future__ import annotations

import pytest

from bench.recordings.traces import GPS

needs_traces = pytest.mark.skipif(
    not GPS.exists(), reason="the recordings (../shared/data/gps) are not available"
)
