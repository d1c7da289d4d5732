"""Draws many values that differ."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from hypothesis import given, seed, settings
from hypothesis.strategies import SearchStrategy

T = TypeVar("T", bound=Hashable)

# From its tenth value on, Hypothesis follows each by five that repeat parts of it: of 300 some 50
# would be independent. Of ten or more, it also makes the first tenth small.
AT_ONCE = 9


def check_each(
    drawn: SearchStrategy[T],
    how_many: int,
    check: Callable[[T], None],
    how: settings,
    first_seed: int,
) -> None:
    """Check so many values, each once but for shrinking; the same ones for the same seed."""
    checked: set[T] = set()
    budget = settings(how, max_examples=AT_ONCE, derandomize=False)

    def check_new(value: T) -> None:
        if value not in checked and len(checked) < how_many:
            check(value)
            checked.add(value)

    number = first_seed
    while len(checked) < how_many:
        seed(number)(budget(given(drawn)(check_new)))()
        number += 1
