"""Vans and random walks, without a network."""

from __future__ import annotations

import random

import pytest

import data
from doorstep.geo import bearing_deg, distance_m
from doorstep.provision import CITIES, numbered_ids
from simulators.cities.atlas import City, near_cities, read_cities
from simulators.cities.fleet import MAX_VANS, driver_id_of
from simulators.cities.van import Van
from simulators.tickers.walk import Walks

ATLAS = read_cities(data.french_cities())
LINE = [City(f"c{n}", 2.0 + n / 100, 48.0) for n in range(20)]  # 740 m apart


def test_near_cities__of_a_city__are_the_third_to_the_tenth_nearest() -> None:
    found = near_cities(LINE, LINE[0].lon_lat)
    assert [city.name for city in found] == [f"c{n}" for n in range(3, 11)]


def test_near_cities__of_a_position_between__count_from_the_nearest() -> None:
    found = near_cities(LINE, (1.9, 48.0))
    assert [city.name for city in found] == [f"c{n}" for n in range(2, 10)]


def test_van__for_a_day__visits_near_cities_and_stays_in_france() -> None:
    start = ATLAS[100]
    van = Van(ATLAS, start.lon_lat, 0.0, random.Random(1))
    goals = [start]
    before = start.lon_lat
    for now_s in range(0, 86_400, 60):
        if van.goal is not goals[-1]:
            assert van.goal in near_cities(ATLAS, goals[-1].lon_lat)
            goals.append(van.goal)
        fix = van.observe(float(now_s))
        here = fix["lon_deg"], fix["lat_deg"]
        assert -5.2 < here[0] < 9.7
        assert 41.3 < here[1] < 51.1
        assert distance_m(before, here) <= 60 * 25 * 1.02  # straight in degrees, nearly so in m
        before = here
    assert len(set(goals)) > 10


def test_van__restarted_at_its_position__continues_from_there() -> None:
    van = Van(ATLAS, ATLAS[0].lon_lat, 0.0, random.Random(2))
    position = van.position(100.0)
    again = Van(ATLAS, position, 500.0, random.Random(3))
    assert again.position(500.0) == pytest.approx(position)
    assert again.goal in near_cities(ATLAS, position)


@pytest.mark.parametrize(
    ("to", "bearing"), [((2.0, 49.0), 0.0), ((2.0, 47.0), 180.0), ((2.01, 48.0), 90.0)]
)
def test_bearing_deg__any_direction__is_clockwise_from_north(
    to: tuple[float, float], bearing: float
) -> None:
    assert bearing_deg((2.0, 48.0), to) == pytest.approx(bearing, abs=0.01)


def test_driver_id_of__all_vans__equals_the_registered_ids() -> None:
    assert [driver_id_of(number) for number in range(1, MAX_VANS + 1)] == numbered_ids(*CITIES)


def test_walks__each_step__adds_or_subtracts_one() -> None:
    walks = Walks({"002": -41.0}, random.Random(1))
    walks.resize(3)
    before = {"001": 0.0, "002": -41.0, "003": 0.0}
    for _ in range(200):
        now = walks.step()
        assert [abs(now[one] - before[one]) for one in before] == [1.0, 1.0, 1.0]
        before = now
    assert min(before.values()) < 0


def test_walks__switched_off_and_on__continues_from_its_value() -> None:
    walks = Walks({}, random.Random(1))
    walks.resize(2)
    for _ in range(9):
        last = walks.step()
    walks.resize(1)
    assert set(walks.step()) == {"001"}
    walks.resize(2)
    assert abs(walks.step()["002"] - last["002"]) == 1.0
    walks.resize(10**9)
    assert walks.count == 1000  # what one source may have
