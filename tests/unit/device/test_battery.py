"""What dead reckoning must save, and may cost, on real traces. See docs/battery.md.

The traces lie beside the project and may not be copied into it.
"""

from __future__ import annotations

import pytest

from doorstep.sampling import SamplingPolicy
from tests.traces.data import needs_traces

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

    named = {
        "all": SamplingPolicy(),
        "thin": SamplingPolicy(mode="dead_reckoning", off_by_m=off_by_m),
    }
    thin = compare(read_drives(runs)[data_set], named)["thin"]
    assert thin["saved_uses_percent"] >= 60
    assert thin["reckoned_p95_m"] <= 50
    assert thin["arrivals"] > 0
    assert thin["missed"] == 0
