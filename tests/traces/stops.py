"""The stops of each phone-day of emission_phones: the places of its order.

A day with a label (bench.recordings.labels) uses the first one's. The other stops were chosen by
hand without an expectation: those phones sent little, or their fixes were coarse.
"""

from __future__ import annotations

from bench.recordings.labels import LABELS, NOWHERE_M, Position

OTHER_STOPS = {
    "phones/d03": (Position(0, 3864), Position(31_176, 43_338)),
    "phones/d06": (Position(0, 13_490), Position(0, 13_490, NOWHERE_M)),
    "phones/d10": (Position(7134, 7236), Position(19_194, 19_344)),
    "phones/d12": (Position(8274, 8526), Position(27_528, 27_720)),
}


def stops_of(day: str) -> tuple[Position, Position]:
    """Return the restaurant's and the customer's place in a phone-day."""
    if day in OTHER_STOPS:
        return OTHER_STOPS[day]
    label = next(
        one for one in LABELS if one.trace == day and ("at_customer" in one.expected or one.missed)
    )
    return label.restaurant, label.customer
