"""Distances on the sphere. Pure: no seam is replaced."""

from __future__ import annotations

import math

import pytest

from doorstep.geo import M_PER_DEG, bearing_deg, distance_m, offset

FLORENCE = (11.25, 43.77)


def test_distance_m__a_degree_of_latitude__is_that_of_postgis() -> None:
    assert round(M_PER_DEG, 4) == 111_195.0797
    assert distance_m((11.0, 43.0), (11.0, 44.0)) == pytest.approx(M_PER_DEG, abs=1e-6)


def test_distance_m__antipodes__are_half_the_circumference() -> None:
    assert distance_m((0.0, 0.0), (180.0, 0.0)) == pytest.approx(180 * M_PER_DEG)


@pytest.mark.parametrize(("east_m", "north_m"), [(0, 60), (500, 0), (-1200, 900)])
def test_offset__within_kilometres__agrees_with_distance_and_bearing(
    east_m: float, north_m: float
) -> None:
    there = offset(FLORENCE, east_m, north_m)
    assert distance_m(FLORENCE, there) == pytest.approx(math.hypot(east_m, north_m), rel=1e-3)
    expected_deg = math.degrees(math.atan2(east_m, north_m)) % 360
    assert bearing_deg(FLORENCE, there) == pytest.approx(expected_deg, abs=0.1)


def test_offset__at_a_pole__is_finite() -> None:
    assert all(map(math.isfinite, offset((0.0, 90.0), 100.0, 0.0)))
