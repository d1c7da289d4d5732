"""What simulated customers order, what they are promised, and why something goes wrong. Pure."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

DISHES = (
    *("margherita", "marinara", "ribollita", "lasagne", "tagliatelle al ragù", "risotto"),
    *("insalata mista", "panzanella", "tiramisù", "gelato", "acqua 0,5 l", "chinotto"),
)
MAX_DISHES = 4
FAILURES = {  # weights
    "customer_absent": 6,
    "wrong_address": 3,
    "refused": 2,
    "damaged": 1,
    "accident": 1,
}
NEXT_STEPS = {  # after each failure; weights of another attempt, the way back, and nothing more
    "customer_absent": (5, 3, 2),
    "wrong_address": (6, 3, 1),
    "refused": (0, 8, 2),
    "damaged": (5, 0, 5),
    "accident": (6, 0, 4),
}
CANCELLATIONS = ("ordered twice", "ordered by mistake", "takes too long")
PIN_SHARE = 0.25  # of the customers want one
PROMISE_AFTER_READY_S = 900.0  # a courier's mean way to the door, and some reserve
WINDOW_S = 900.0


def order_details(
    rng: random.Random, now: datetime, ready_in_s: float, pace: float
) -> dict[str, Any]:
    """Draw the details of an order. Durations are simulated; `pace` is the simulation's speed."""

    def at(seconds: float) -> str:
        return (now + timedelta(seconds=seconds / pace)).isoformat(timespec="seconds")

    dishes = rng.choices(DISHES, k=rng.randint(1, MAX_DISHES))
    counted = {dish: dishes.count(dish) for dish in dishes}
    promised_s = ready_in_s + PROMISE_AFTER_READY_S
    return {
        "items": "\n".join(f"{count} x {dish}" for dish, count in counted.items()),
        "ready_at": at(ready_in_s),
        "promised_from": at(promised_s - WINDOW_S / 2),
        "promised_to": at(promised_s + WINDOW_S / 2),
    }


def pin_of(lon_deg: float, lat_deg: float) -> str | None:
    """Return the PIN of an order to a door, if it has one.

    It follows from the place, so that a restarted simulator knows it.
    """
    number = zlib.crc32(f"{lon_deg!r} {lat_deg!r}".encode())
    return f"{number % 10_000:04}" if number / 2**32 < PIN_SHARE else None


def wrong_pin(pin: str) -> str:
    """Return another PIN, as a customer misremembers it."""
    return pin[:-1] + str((int(pin[-1]) + 1) % 10)


def failure(rng: random.Random) -> Mapping[str, str]:
    """Draw why an order cannot be delivered, and what follows: perhaps a `next_step`."""
    reason = rng.choices(list(FAILURES), list(FAILURES.values()))[0]
    [step] = rng.choices(("retry", "return", None), NEXT_STEPS[reason])
    return {"reason": reason} if step is None else {"reason": reason, "next_step": step}


def cancellation(rng: random.Random) -> Mapping[str, str]:
    """Draw why a customer cancels."""
    return {"reason": rng.choice(CANCELLATIONS)}
