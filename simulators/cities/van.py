"""One van's way from city to city. Pure: time and chance are passed in."""

from __future__ import annotations

import random
from collections.abc import Sequence

from doorstep.geo import bearing_deg, distance_m
from simulators.cities.atlas import City, next_city

SPEED_MPS = 25.0  # 90 km/h
BATTERY_S = 8 * 3600.0  # from full to a tenth; then it is charged


class Van:
    """Straight from one city to the next, at one speed, without a stop."""

    def __init__(
        self,
        cities: Sequence[City],
        place: tuple[float, float],
        now_s: float,
        rng: random.Random,
        speed_mps: float = SPEED_MPS,
    ) -> None:
        self._cities = cities
        self._rng = rng
        self._speed_mps = speed_mps
        self._began_s = now_s - rng.uniform(0, BATTERY_S)
        self._set_out(place, now_s)

    def _set_out(self, place: tuple[float, float], now_s: float) -> None:
        self._start, self._left_s = place, now_s
        self.goal = next_city(self._cities, place, self._rng)
        self._way_m = distance_m(place, self.goal.lon_lat)

    def place(self, now_s: float) -> tuple[float, float]:
        """Where it is, (lon_deg, lat_deg); time never runs backwards here."""
        while (gone_m := (now_s - self._left_s) * self._speed_mps) >= self._way_m:
            self._set_out(self.goal.lon_lat, self._left_s + self._way_m / self._speed_mps)
        part = gone_m / self._way_m
        (lon_a, lat_a), (lon_b, lat_b) = self._start, self.goal.lon_lat
        return lon_a + (lon_b - lon_a) * part, lat_a + (lat_b - lat_a) * part

    def observe(self, now_s: float) -> dict[str, object]:
        """What its phone reports about this instant, without its time."""
        lon_deg, lat_deg = self.place(now_s)
        driven = ((now_s - self._began_s) % BATTERY_S) / BATTERY_S
        return {
            "lat_deg": round(lat_deg, 6),
            "lon_deg": round(lon_deg, 6),
            "accuracy_m": 8.0,
            "speed_mps": self._speed_mps,
            "heading_deg": round(bearing_deg((lon_deg, lat_deg), self.goal.lon_lat), 1) % 360,
            "battery": round(1.0 - 0.9 * driven, 2),
        }
