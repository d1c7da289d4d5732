"""A device's position at an instant: straight legs, cheap to compute and deterministic.

Distances are in millionths of a degree. Florence lies between 43 and 44 degrees north and 11 and 12
degrees east, so only the six digits after the point vary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from doorstep.geo import M_PER_DEG

LAT_DEG = 43  # whole degrees
LON_DEG = 11
MICRO = 1_000_000
MICRO_LAT_PER_M = MICRO / M_PER_DEG
MICRO_LON_PER_M = MICRO_LAT_PER_M / math.cos(math.radians(43.77))
SPEED_MPS = 8.0  # a courier on a scooter
DRIFT_MPS = 0.3
NEVER_MS = float("inf")
JITTER_MICRO = 13  # a receiver at rest drifts by about a metre


class Leg(NamedTuple):
    """Uniform movement until an instant (ms since the start). `tail` ends the fix's JSON."""

    until_ms: float
    lon_micro: float  # at 0 ms
    lat_micro: float
    lon_per_ms: float
    lat_per_ms: float
    tail: bytes


class Route(Protocol):
    """A device's route."""

    def leg_at(self, ms: float) -> Leg:
        """The leg at an instant."""


@dataclass(frozen=True, slots=True)
class IdleRoute:
    """Back and forth between two points: a driver without an order."""

    lon_micro: float
    lat_micro: float
    heading_deg: int
    leg_ms: float  # duration of one leg

    def leg_at(self, ms: float) -> Leg:
        """The leg at an instant."""
        legs = math.floor(ms / self.leg_ms)
        began_ms = legs * self.leg_ms
        lon_per_ms, lat_per_ms = velocity(self.heading_deg)
        lon_micro, lat_micro = self.lon_micro, self.lat_micro
        heading_deg = self.heading_deg
        if legs % 2:
            lon_micro += lon_per_ms * self.leg_ms
            lat_micro += lat_per_ms * self.leg_ms
            lon_per_ms, lat_per_ms = -lon_per_ms, -lat_per_ms
            heading_deg = (heading_deg + 180) % 360
        return Leg(
            began_ms + self.leg_ms,
            lon_micro - lon_per_ms * began_ms,
            lat_micro - lat_per_ms * began_ms,
            lon_per_ms,
            lat_per_ms,
            tail_of(SPEED_MPS, heading_deg),
        )


@dataclass(frozen=True, slots=True)
class DeliveryRoute:
    """Straight to a place, a stop there, and straight on: a driver with an order."""

    lon_micro: float  # the place: a restaurant or a door
    lat_micro: float
    heading_deg: int
    arrives_ms: float
    leaves_ms: float
    ends_ms: float  # stops for good

    def leg_at(self, ms: float) -> Leg:
        """The leg at an instant."""
        lon_per_ms, lat_per_ms = velocity(self.heading_deg)
        moving = tail_of(SPEED_MPS, self.heading_deg)
        stopped = tail_of(DRIFT_MPS, self.heading_deg)
        if ms < self.arrives_ms:
            return Leg(
                self.arrives_ms,
                self.lon_micro - lon_per_ms * self.arrives_ms,
                self.lat_micro - lat_per_ms * self.arrives_ms,
                lon_per_ms,
                lat_per_ms,
                moving,
            )
        if ms < self.leaves_ms:
            return Leg(self.leaves_ms, self.lon_micro, self.lat_micro, 0.0, 0.0, stopped)
        away_lon = self.lon_micro - lon_per_ms * self.leaves_ms
        away_lat = self.lat_micro - lat_per_ms * self.leaves_ms
        if ms < self.ends_ms:
            return Leg(self.ends_ms, away_lon, away_lat, lon_per_ms, lat_per_ms, moving)
        return Leg(
            NEVER_MS,
            away_lon + lon_per_ms * self.ends_ms,
            away_lat + lat_per_ms * self.ends_ms,
            0.0,
            0.0,
            stopped,
        )


def micro_of(lon_deg: float, lat_deg: float) -> tuple[float, float]:
    """Convert degrees to the units of a route."""
    return (lon_deg - LON_DEG) * MICRO, (lat_deg - LAT_DEG) * MICRO


def velocity(heading_deg: int) -> tuple[float, float]:
    """Millionths of a degree per ms, east and north."""
    angle = math.radians(heading_deg)
    per_ms = SPEED_MPS / 1000
    return (
        per_ms * MICRO_LON_PER_M * math.sin(angle),
        per_ms * MICRO_LAT_PER_M * math.cos(angle),
    )


def tail_of(speed_mps: float, heading_deg: int) -> bytes:
    """The members that are constant on a leg, as the end of a fix's JSON object."""
    text = f'"accuracy_m":4.8,"speed_mps":{speed_mps:.1f},"heading_deg":{heading_deg}}}'
    return text.encode()
