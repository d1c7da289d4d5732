"""One version of the arrival model: speeds, waiting times, drivers' paces and error bands.

All durations are in model time: at a policy's `pace` of 10 (a demo at ten times the speed) they
are multiplied by 10 when learned and divided by 10 when used.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

HOURS = 24
QUANTILES = tuple(n / 20 for n in range(21))  # of the wait: minimum, 5 %, … maximum

# OpenStreetMap's highway classes that the model distinguishes.
STREET_CLASSES = ("trunk", "primary", "secondary", "tertiary", "unclassified", "residential",
                  "service")  # fmt: skip
# The prior: 13 to 29 km/h between stops.
PRIOR_MPS = (8.0, 6.5, 6.0, 5.5, 5.0, 4.7, 3.5)
PRIOR_CROSSING_S = 3.0  # lost at a crossing of streets of which one is tertiary or larger
PRIOR_ARRIVAL_S = 15.0  # from the kerb to the door
PRIOR_WAIT_S = (*(60.0 + 20.0 * n for n in range(19)), 600.0, 1200.0)  # median 260 s


class Phase(StrEnum):
    """The part of a delivery that a courier is in."""

    TO_RESTAURANT = "to_restaurant"
    AT_RESTAURANT = "at_restaurant"
    TO_CUSTOMER = "to_customer"


class RouteChoice(StrEnum):
    """What couriers route by."""

    LIMITS = "limits"  # the fastest route by speed limits, as phones show it
    SPEEDS = "speeds"  # the fastest route by learned speeds


@dataclass(frozen=True, slots=True)
class Band:
    """Quantiles of true over estimated remaining time, for estimates up to `up_to_s`."""

    phase: Phase
    up_to_s: float
    p10: float
    p50: float
    p90: float
    samples: int = 0


PRIOR_BANDS = tuple(Band(phase, float("inf"), 0.65, 1.0, 1.6) for phase in Phase)


@dataclass(frozen=True, slots=True)
class EtaModel:
    """One version. `learned_at` is None for the prior."""

    street_mps: Sequence[Sequence[float]] = tuple((mps,) * HOURS for mps in PRIOR_MPS)
    crossing_s: float = PRIOR_CROSSING_S
    arrival_s: float = PRIOR_ARRIVAL_S
    wait_s: Sequence[float] = PRIOR_WAIT_S
    driver_pace: Mapping[str, float] = field(default_factory=dict)  # actual over usual time
    bands: Sequence[Band] = PRIOR_BANDS
    route_choice: RouteChoice = RouteChoice.LIMITS
    model_id: int = 0
    learned_at: datetime | None = None
    rides: int = 0

    def band(self, phase: Phase, estimated_s: float) -> Band:
        """The error band of an estimate of this length."""
        of_phase = [band for band in self.bands if band.phase is phase]
        for band in sorted(of_phase, key=lambda band: band.up_to_s):
            if estimated_s <= band.up_to_s:
                return band
        return Band(phase, float("inf"), 0.65, 1.0, 1.6)

    def remaining_wait_s(self, waited_s: float) -> float:
        """The median remaining wait at the restaurant, `waited_s` into it."""
        share_shorter = self._share_shorter(waited_s)
        return max(quantile_value(self.wait_s, (1 + share_shorter) / 2) - waited_s, 0.0)

    def _share_shorter(self, waited_s: float) -> float:
        """The share of waits shorter than `waited_s`."""
        quantiles = self.wait_s
        after = bisect_left(quantiles, waited_s)
        if after == 0:
            return 0.0
        if after == len(quantiles):
            return 1.0
        low, high = quantiles[after - 1], quantiles[after]
        fraction = (waited_s - low) / (high - low) if high > low else 0.0
        return QUANTILES[after - 1] + fraction / (len(quantiles) - 1)


def quantile_value(quantiles: Sequence[float], share: float) -> float:
    """Interpolate the value at `share` from quantiles at equal steps."""
    position = share * (len(quantiles) - 1)
    low = min(int(position), len(quantiles) - 2)
    return quantiles[low] + (quantiles[low + 1] - quantiles[low]) * (position - low)
