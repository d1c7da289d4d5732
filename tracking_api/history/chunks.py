"""Decodes packed fixes as the database's fix_chunk__unpack does, in a tenth of its time. Pure.

A chunk (sql/schema/46_history_compaction.sql) is two MULTIPOINTs in TWKB: after a head of four or
five bytes, zigzag varints with the difference of each dimension to the point before.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_MULTIPOINT = 4
_EXTENDED = 0b1000  # the head has a third byte: which of Z and M there are, and their precisions


class UnreadableChunk(ValueError):
    """The bytes are no chunk of ours."""


class Chunk(NamedTuple):
    """A row of fix_chunk, as far as histories need it."""

    from_at: datetime
    boot: str
    run_starts: list[int]
    run_seqs: list[int]
    track_bytes: int
    encoded: bytes


class ChunkFixes(NamedTuple):
    """The fixes of a chunk, column by column: a row each.

    `instants_us` are fix_at and received_at, in µs since the epoch; `places` lon_deg and lat_deg;
    `extras` accuracy_m, speed_mps and heading_deg, NaN for none.
    """

    instants_us: Integers
    places: Floats
    extras: Floats
    seq: Integers


def decode_chunk(chunk: Chunk) -> ChunkFixes:
    """Decode all fixes of a chunk. Raises UnreadableChunk."""
    track, ms_digits = _points(chunk.encoded[: chunk.track_bytes], 4)
    rest, _ = _points(chunk.encoded[chunk.track_bytes :], 3)
    day = chunk.from_at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    fix_at_us = round(day.timestamp()) * 1_000_000 + track[:, 3] * 10 ** (3 - ms_digits)
    extras = np.column_stack((track[:, 2] / 10, rest[:, 0] / 10, rest[:, 1].astype(np.float64)))
    extras[extras < 0] = np.nan
    n = np.arange(1, len(track) + 1)
    starts = np.array(chunk.run_starts)
    run = np.searchsorted(starts, n, side="right") - 1
    return ChunkFixes(
        np.column_stack((fix_at_us, fix_at_us + rest[:, 2] * 100_000)),
        track[:, :2] / 1e7,
        extras,
        np.array(chunk.run_seqs, np.int64)[run] + n - starts[run],
    )


def _points(twkb: bytes, dimensions: int) -> tuple[Integers, int]:
    """Return the points as integers, and the decimal digits of M."""
    if len(twkb) < 4 or twkb[0] & 15 != _MULTIPOINT or twkb[1] != _EXTENDED:
        raise UnreadableChunk("not a MULTIPOINT with further dimensions")
    has = 2 + (twkb[2] & 1) + (twkb[2] >> 1 & 1)
    varints = _varints(twkb[3:])
    if has != dimensions or len(varints) != 1 + int(varints[0]) * dimensions:
        raise UnreadableChunk("another number of points or dimensions")
    values = varints[1:]
    deltas = (values >> np.uint64(1)).astype(np.int64) ^ -(values & np.uint64(1)).astype(np.int64)
    return np.cumsum(deltas.reshape(-1, dimensions), axis=0), twkb[2] >> 5


def _varints(data: bytes) -> NDArray[np.uint64]:
    """Decode all varints of some bytes: seven bits each, the lowest first."""
    octets = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(octets < 128)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    values = np.zeros(len(ends), np.uint64)
    for k in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > k)
        bits = (octets[starts[longer] + k] & 127).astype(np.uint64)
        values[longer] |= bits << np.uint64(7 * k)
    return values
