"""The radio use saved by dead reckoning, and its position error, on recorded traces.

The traces are not part of the project; the test is skipped without them.
"""

from __future__ import annotations

import pytest

from doorstep.sampling import SamplingPolicy
from tests.traces.marks import needs_traces

pytestmark = needs_traces


@pytest.mark.parametrize(
    ("data_set", "runs", "off_by_m"),
    [
        ("goal_delivery_agents", 40, 25),
        ("goal_delivery_agents", 40, 40),
        ("barefoot_munich", 0, 25),
    ],
)
def test_dead_reckoning__real_drives__saves_60_percent_within_50_m_and_misses_no_arrival(
    data_set: str, runs: int, off_by_m: float
) -> None:
    from bench.battery import compare
    from bench.recorded_drives import read_drives

    policies = {
        "all": SamplingPolicy(),
        "thin": SamplingPolicy(mode="dead_reckoning", off_by_m=off_by_m),
    }
    thin = compare(read_drives(runs)[data_set], policies)["thin"]
    assert thin["saved_uses_percent"] >= 60
    assert thin["reckoned_p95_m"] <= 50
    assert thin["arrivals"] > 0
    assert thin["missed"] == 0
