"""What the arrival estimate knows: speeds by street class and hour, waits, paces, and its errors.

All times are a city's own: at a policy's `pace` of 10 (a demo at ten times the speed) they are
divided by 10 when they are used, and were multiplied when they were learned.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

HOURS = 24
QUANTILES = tuple(n / 20 for n in range(21))  # of the wait: minimum, 5 %, … maximum

# OpenStreetMap's classes, with what they count as.
STREET_CLASSES = ("trunk", "primary", "secondary", "tertiary", "unclassified", "residential",
                  "service")  # fmt: skip
# What a city's couriers do before anything is known: 13 to 29 km/h between stops.
PRIOR_MPS = (8.0, 6.5, 6.0, 5.5, 5.0, 4.7, 3.5)
PRIOR_CROSSING_S = 3.0  # lost at a crossing of streets of which one is tertiary or larger
PRIOR_ARRIVAL_S = 15.0  # from the kerb to the door
PRIOR_WAIT_S = (*(60.0 + 20.0 * n for n in range(19)), 600.0, 1200.0)  # median 260 s


class Phase(StrEnum):
    """How far a courier is with an order, as the estimate tells them apart."""

    TO_RESTAURANT = "to_restaurant"
    AT_RESTAURANT = "at_restaurant"
    TO_CUSTOMER = "to_customer"


class Ways(StrEnum):
    """Which ways couriers take: the fastest by the signs, as phones show, or by what is learned."""

    LIMITS = "limits"
    SPEEDS = "speeds"


@dataclass(frozen=True, slots=True)
class Band:
    """True over estimated time left, where at most `up_to_s` were estimated: three quantiles."""

    phase: Phase
    up_to_s: float
    p10: float
    p50: float
    p90: float
    samples: int = 0


PRIOR_BANDS = tuple(Band(phase, float("inf"), 0.65, 1.0, 1.6) for phase in Phase)


@dataclass(frozen=True, slots=True)
class EtaModel:
    """One version of what is known. `learned_at` is None before anything was learned."""

    street_mps: Sequence[Sequence[float]] = tuple((mps,) * HOURS for mps in PRIOR_MPS)
    crossing_s: float = PRIOR_CROSSING_S
    arrival_s: float = PRIOR_ARRIVAL_S
    wait_s: Sequence[float] = PRIOR_WAIT_S
    driver_pace: Mapping[str, float] = field(default_factory=dict)  # time taken over estimated
    bands: Sequence[Band] = PRIOR_BANDS
    ways: Ways = Ways.LIMITS
    model_id: int = 0
    learned_at: datetime | None = None
    rides: int = 0

    def band(self, phase: Phase, estimated_s: float) -> Band:
        """How far off an estimate of this size is."""
        fitting = [band for band in self.bands if band.phase is phase]
        for band in sorted(fitting, key=lambda band: band.up_to_s):
            if estimated_s <= band.up_to_s:
                return band
        return Band(phase, float("inf"), 0.65, 1.0, 1.6)

    def wait_left_s(self, waited_s: float) -> float:
        """The median of what is left of a wait at the restaurant, `waited_s` into it."""
        share_over = self._share_waited(waited_s)
        return max(wait_at(self.wait_s, (1 + share_over) / 2) - waited_s, 0.0)

    def _share_waited(self, waited_s: float) -> float:
        """The share of waits that are shorter."""
        known = self.wait_s
        after = bisect_left(known, waited_s)
        if after == 0:
            return 0.0
        if after == len(known):
            return 1.0
        low, high = known[after - 1], known[after]
        inside = (waited_s - low) / (high - low) if high > low else 0.0
        return QUANTILES[after - 1] + inside / (len(known) - 1)


def wait_at(quantiles: Sequence[float], share: float) -> float:
    """Read a value off quantiles at equal steps."""
    place = share * (len(quantiles) - 1)
    low = min(int(place), len(quantiles) - 2)
    return quantiles[low] + (quantiles[low + 1] - quantiles[low]) * (place - low)
