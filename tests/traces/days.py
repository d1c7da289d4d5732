"""The order that each phone of emission_phones carries through its day, at stops of its own.

Where a day has a label (tests/traces/labels.py), it is the first of these. The other days' stops
were chosen by hand too, without an expectation: those phones were silent, or their fixes coarse.
"""

from __future__ import annotations

from tests.traces.labels import LABELS, NOWHERE_M, Position

OTHER_STOPS = {
    "phones/d03": (Position(0, 3864), Position(31_176, 43_338)),
    "phones/d06": (Position(0, 13_490), Position(0, 13_490, NOWHERE_M)),
    "phones/d10": (Position(7134, 7236), Position(19_194, 19_344)),
    "phones/d12": (Position(8274, 8526), Position(27_528, 27_720)),
}


def stops_of(day: str) -> tuple[Position, Position]:
    """The restaurant's and the customer's place in a phone-day."""
    if day in OTHER_STOPS:
        return OTHER_STOPS[day]
    label = next(
        one for one in LABELS if one.trace == day and ("at_customer" in one.expected or one.missed)
    )
    return label.restaurant, label.customer
