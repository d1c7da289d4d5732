"""The segments around a place, compared with a look at all of them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from eta.streets.segment_blocks import BLOCK_M, SegmentBlocks

BLUR_M = 12.0
RNG = random.Random(4)
SEGMENTS = np.array(
    [
        [(x, y), (x + RNG.gauss(0, 80), y + RNG.gauss(0, 80))]
        for x, y in ((RNG.uniform(-500, 500), RNG.uniform(-500, 500)) for _ in range(400))
    ]
)


def within(west: float, south: float, east: float, north: float) -> np.ndarray:
    low, high = SEGMENTS.min(axis=1), SEGMENTS.max(axis=1)
    meets = (low <= (east, north)).all(axis=1) & (high >= (west, south)).all(axis=1)
    return np.flatnonzero(meets)


def distances(x: float, y: float) -> np.ndarray:
    starts, steps = SEGMENTS[:, 0], SEGMENTS[:, 1] - SEGMENTS[:, 0]
    share = np.clip((((x, y) - starts) * steps).sum(1) / (steps * steps).sum(1), 0, 1)
    return np.hypot(*((starts + steps * share[:, None]) - (x, y)).T)


def test_near__random_places__finds_the_nearest_and_those_little_farther():
    blocks, decided = SegmentBlocks(SEGMENTS, within), 0
    for _ in range(300):
        x, y = RNG.uniform(-550, 550), RNG.uniform(-550, 550)
        all_m = distances(x, y)
        reach_m = all_m.min() + BLUR_M
        found = blocks.near(x, y, BLUR_M)
        if found is None:
            assert reach_m > BLOCK_M
            continue
        decided += 1
        assert set(found) == set(np.flatnonzero(all_m <= reach_m).tolist())
        assert all_m[found].tolist() == sorted(all_m[found].tolist())
    assert decided > 200


@pytest.mark.parametrize("x", [float("nan"), float("inf"), 1e9])
def test_near__a_place_without_segments__is_undecided(x: float):
    assert SegmentBlocks(SEGMENTS, within).near(x, 0.0, BLUR_M) is None
