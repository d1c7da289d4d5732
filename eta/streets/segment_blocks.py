"""The street segments around a place, block by block: most fixes are near earlier ones."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_M = 64.0  # also how far around a block its segments reach
MAX_BLOCKS = 4_000  # of usually 30 segments: 1.6 kB each

Floats = NDArray[np.float64]


class _Block(NamedTuple):
    numbers: NDArray[np.int64]
    lines: Floats  # start x, start y, east, north, 1 / length² of each


class SegmentBlocks:
    """Finds the segments near a place, exactly, up to BLOCK_M away."""

    def __init__(
        self, segments: Floats, within: Callable[[float, float, float, float], NDArray[np.int64]]
    ) -> None:
        """`within` returns the numbers of the segments in (west, south, east, north)."""
        self._segments = segments
        self._within = within
        self._held: OrderedDict[tuple[int, int], _Block] = OrderedDict()  # by use, oldest first

    def near(self, x: float, y: float, blur_m: float) -> list[int] | None:
        """The nearest segment, and those at most `blur_m` farther; the nearest first.

        None if that cannot be decided within BLOCK_M.
        """
        if not (math.isfinite(x) and math.isfinite(y)):
            return None
        block = self._block(math.floor(x / BLOCK_M), math.floor(y / BLOCK_M))
        if not len(block.numbers):
            return None
        start_x, start_y, east, north, per_square = block.lines
        from_x, from_y = x - start_x, y - start_y
        share = (from_x * east + from_y * north) * per_square
        np.minimum(np.maximum(share, 0.0, out=share), 1.0, out=share)
        from_x -= share * east
        from_y -= share * north
        squares = from_x * from_x + from_y * from_y
        reach_m = math.sqrt(squares.min()) + blur_m
        if reach_m > BLOCK_M:
            return None
        found = np.flatnonzero(squares <= reach_m * reach_m)
        if len(found) > 1:
            found = found[squares[found].argsort()]
        numbers: list[int] = block.numbers[found].tolist()
        return numbers

    def _block(self, column: int, row: int) -> _Block:
        """The segments of a block and around it."""
        key = column, row
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            return held
        west, south = (column - 1) * BLOCK_M, (row - 1) * BLOCK_M
        numbers = self._within(west, south, west + 3 * BLOCK_M, south + 3 * BLOCK_M)
        start_x, start_y, end_x, end_y = self._segments[numbers].reshape(-1, 4).T
        east, north = end_x - start_x, end_y - start_y
        per_square = 1.0 / np.maximum(east * east + north * north, 1e-9)
        block = _Block(numbers, np.stack([start_x, start_y, east, north, per_square]))
        self._held[key] = block
        if len(self._held) > MAX_BLOCKS:
            self._held.popitem(last=False)
        return block
