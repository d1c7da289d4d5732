"""Sampling: the policies, the heartbeat, and the command's format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from device.sampling import Sampler, moved_m, observed_fix_of, off_by_m
from doorstep.geo import M_PER_DEG
from doorstep.sampling import (
    MalformedCommand,
    SamplingPolicy,
    decode_command,
    encode_command,
    predict,
)

BEGAN_MS = 1_700_000_000_000
LAT = 43.77


def fix(second: float, east_m: float = 0.0, **more: float) -> dict[str, Any]:
    lon_deg = 11.25 + east_m / M_PER_DEG / math.cos(math.radians(LAT))
    return {
        "fix_at": BEGAN_MS + round(second * 1000),
        "lat_deg": LAT,
        "lon_deg": lon_deg,
        **more,
    }


def sent(policy: SamplingPolicy, fixes: Sequence[dict[str, Any]], pace: float = 1.0) -> list[float]:
    """The times of the fixes that are sent, s."""
    sampler = Sampler(policy, pace)
    return [(one["fix_at"] - BEGAN_MS) / 1000 for taken in fixes for one in sampler.observe(taken)]


def test_sampler__default_policy__sends_all() -> None:
    fixes = [fix(second) for second in range(0, 40, 4)]
    assert len(sent(SamplingPolicy(), fixes)) == len(fixes)


@pytest.mark.parametrize("step_s", [1.0, 4.0, 5.0, 7.0, 11.0])
@pytest.mark.parametrize("mode", ["time", "distance", "accuracy", "dead_reckoning"])
def test_sampler__standing_still__sends_within_the_heartbeat(mode: Any, step_s: float) -> None:
    fixes = [fix(number * step_s) for number in range(200)]
    times = sent(SamplingPolicy(mode=mode, every_s=30, keep_every_s=0), fixes)
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) <= 30
    assert len(times) < 200


def test_sampler__interval_above_the_heartbeat__sends_all() -> None:
    fixes = [fix(second) for second in range(0, 400, 40)]
    assert len(sent(SamplingPolicy(mode="distance"), fixes)) == len(fixes)


def test_sampler__distance__sends_after_that_distance() -> None:
    fixes = [fix(second, east_m=second * 5.01) for second in range(20)]
    assert sent(SamplingPolicy(mode="distance", distance_m=30, keep_every_s=0), fixes) == [
        0,
        6,
        12,
        18,
    ]


def test_sampler__accuracy__moves_below_both_radii_are_noise() -> None:
    fixes = [fix(second, east_m=second * 4.99, accuracy_m=10) for second in range(12)]
    assert sent(SamplingPolicy(mode="accuracy", keep_every_s=0), fixes) == [0, 5, 10]


def test_sampler__dead_reckoning__a_straight_way_at_one_speed_is_not_sent() -> None:
    straight = [
        fix(second, east_m=second * 10, speed_mps=10, heading_deg=90) for second in range(25)
    ]
    stopped = [fix(second, east_m=240, speed_mps=0, heading_deg=90) for second in range(25, 40)]
    policy = SamplingPolicy(mode="dead_reckoning", off_by_m=25, keep_every_s=0)
    assert sent(policy, straight + stopped) == [0, 27]  # 30 m off, three seconds after the stop


def test_sampler__skipped_fixes__one_in_keep_every_s_is_sent_along() -> None:
    fixes = [fix(second) for second in range(0, 60, 4)]
    assert sent(SamplingPolicy(mode="distance", keep_every_s=8), fixes) == [
        0,
        8,
        16,
        24,
        28,
        36,
        44,
        52,
        56,
    ]


def test_sampler__clock_set_back__sends_and_continues() -> None:
    fixes = [fix(100), fix(104), fix(10), fix(14), fix(18)]
    assert sent(SamplingPolicy(mode="distance", keep_every_s=0), fixes) == [100, 10]


def test_sampler__malformed_fix__is_sent_for_the_platform_to_reject() -> None:
    sampler = Sampler(SamplingPolicy(mode="distance"))
    bad = {"fix_at": "yesterday", "lat_deg": None}
    assert sampler.observe(bad) == [bad]


def test_sampler__pace_10__divides_durations_by_10() -> None:
    fixes = [fix(number * 0.4) for number in range(100)]
    times = sent(SamplingPolicy(mode="distance", keep_every_s=0), fixes, pace=10)
    assert max(b - a for a, b in pairwise(times)) <= 3.0
    assert len(times) == pytest.approx(100 / 7, abs=1)


def test_off_by_m__moving__is_measured_from_the_predicted_position() -> None:
    last = observed_fix_of(fix(0, speed_mps=10, heading_deg=90))
    now = observed_fix_of(fix(10, east_m=70, speed_mps=10, heading_deg=90))
    assert last is not None
    assert now is not None
    assert off_by_m(last, now) == pytest.approx(30, abs=0.1)
    assert moved_m(last, now) == pytest.approx(70, abs=0.1)


def test_off_by_m__no_heading__predicts_the_same_position() -> None:
    last, now = observed_fix_of(fix(0, speed_mps=10)), observed_fix_of(fix(10))
    assert last is not None
    assert now is not None
    assert off_by_m(last, now) == 0


def test_predict__at_a_pole__is_finite() -> None:
    assert all(map(math.isfinite, predict(0, 90, 500, 90, 30)))


def test_command__encoded_and_decoded__is_the_same() -> None:
    policy = SamplingPolicy(mode="dead_reckoning", off_by_m=40, batch_s=20)
    assert decode_command(encode_command(policy)) == policy


def test_command__unknown_fields__are_ignored() -> None:
    payload = b'{"command": "report", "mode": "time", "every_s": 9, "colour": "red"}'
    assert decode_command(payload) == SamplingPolicy(mode="time", every_s=9)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"command": "reboot"}',
        b'{"command": "report", "mode": "never"}',
        b'{"command": "report", "heartbeat_s": 31}',
        b'{"command": "report", "heartbeat_s": 0}',
        b'{"command": "report", "off_by_m": "25"}',
        b'{"command": "report", "batch_s": NaN}',
        b'{"command": "report", "pad": "' + b"x" * 2000 + b'"}',
    ],
)
def test_command__malformed__is_refused(payload: bytes) -> None:
    with pytest.raises(MalformedCommand):
        decode_command(payload)
