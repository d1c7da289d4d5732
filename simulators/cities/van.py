"""One van's route from city to city. Pure: time and random numbers are passed in."""

from __future__ import annotations

import random
from collections.abc import Sequence

from doorstep.geo import bearing_deg, distance_m
from simulators.cities.atlas import City, next_city

SPEED_MPS = 25.0  # 90 km/h
BATTERY_S = 8 * 3600.0  # from full to a tenth; then it is charged


class Van:
    """Drives straight from one city to the next, at constant speed, without stops."""

    def __init__(
        self,
        cities: Sequence[City],
        position: tuple[float, float],
        now_s: float,
        rng: random.Random,
        speed_mps: float = SPEED_MPS,
    ) -> None:
        self._cities = cities
        self._rng = rng
        self._speed_mps = speed_mps
        self._charged_at_s = now_s - rng.uniform(0, BATTERY_S)
        self._start_leg(position, now_s)

    def _start_leg(self, position: tuple[float, float], now_s: float) -> None:
        self._start, self._start_s = position, now_s
        self.goal = next_city(self._cities, position, self._rng)
        self._leg_m = distance_m(position, self.goal.lon_lat)

    def position(self, now_s: float) -> tuple[float, float]:
        """Return the position, (lon_deg, lat_deg). `now_s` must not decrease."""
        while (driven_m := (now_s - self._start_s) * self._speed_mps) >= self._leg_m:
            self._start_leg(self.goal.lon_lat, self._start_s + self._leg_m / self._speed_mps)
        share = driven_m / self._leg_m
        (lon_a, lat_a), (lon_b, lat_b) = self._start, self.goal.lon_lat
        return lon_a + (lon_b - lon_a) * share, lat_a + (lat_b - lat_a) * share

    def observe(self, now_s: float) -> dict[str, object]:
        """Return the phone's fix at this instant, without `fix_at`."""
        lon_deg, lat_deg = self.position(now_s)
        driven = ((now_s - self._charged_at_s) % BATTERY_S) / BATTERY_S
        return {
            "lat_deg": round(lat_deg, 6),
            "lon_deg": round(lon_deg, 6),
            "accuracy_m": 8.0,
            "speed_mps": self._speed_mps,
            "heading_deg": round(bearing_deg((lon_deg, lat_deg), self.goal.lon_lat), 1) % 360,
            "battery": round(1.0 - 0.9 * driven, 2),
        }
