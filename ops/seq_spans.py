"""Sets of seqs as spans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Span = tuple[int, int]
"""Seqs from the first to the last, both included."""


def count_seqs(spans: Iterable[Span]) -> int:
    """Count the seqs in spans that do not overlap."""
    return sum(last - first + 1 for first, last in spans)


def merge(spans: Iterable[Span]) -> list[Span]:
    """Sort and merge spans, so that they neither overlap nor touch."""
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        elif first <= last:
            merged.append((first, last))
    return merged


def subtract(spans: Iterable[Span], removed: Iterable[Span]) -> list[Span]:
    """Return the seqs of `spans` that are not in `removed`."""
    holes = merge(removed)
    rest: list[Span] = []
    for first, last in merge(spans):
        start = first
        for low, high in holes:
            if high < start or low > last:
                continue
            if low > start:
                rest.append((start, low - 1))
            start = high + 1
        if start <= last:
            rest.append((start, last))
    return rest


def intersect(one: Sequence[Span], other: Iterable[Span]) -> list[Span]:
    """Return the seqs in both."""
    return subtract(one, subtract(one, other))
