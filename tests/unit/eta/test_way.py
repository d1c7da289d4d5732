"""The way ahead of a route, as a line with few points."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from data.cities import bundled_city
from doorstep.geo import distance_m
from eta.features import City
from eta.model import EtaModel
from eta.streets import Point, load_streets
from eta.travel_time_cache import MAX_FIRST_POINTS, MAX_FURTHER_POINTS, TravelTimeCache

DOOR = (11.2610, 43.7780)
HOUR = 12
NARROWEST_M = 12.0  # half of a broad street, and the simplification


@pytest.fixture(scope="module")
def city() -> City:
    return City(load_streets(bundled_city()))


@pytest.fixture
def cache(city: City) -> TravelTimeCache:
    return TravelTimeCache(city, EtaModel(), max_runs_per_s=math.inf)


STARTS = [(11.2000 + 0.012 * n, 43.7600 + 0.004 * n) for n in range(8)]


def length_m(way: list[Point]) -> float:
    return sum(distance_m(one, other) for one, other in pairwise(way))


def test_way__not_estimated_before__is_none(cache: TravelTimeCache):
    assert cache.way(STARTS[0], DOOR, HOUR) is None


def test_way__from_anywhere__leads_along_the_estimates_route_to_the_door(
    cache: TravelTimeCache, city: City
):
    compared = 0
    for start in STARTS:
        remaining = cache.remaining(start, DOOR, HOUR)
        way = cache.way(start, DOOR, HOUR)
        if remaining is None or way is None:
            continue
        compared += 1
        assert len(way) <= MAX_FIRST_POINTS + MAX_FURTHER_POINTS
        assert length_m(way) == pytest.approx(remaining.metres, rel=0.05, abs=30)
        assert distance_m(way[0], start) < 350  # on the nearest street
        assert distance_m(way[-1], DOOR) < 300
    assert compared >= 6


def test_way__every_part__is_on_a_street(cache: TravelTimeCache, city: City):
    cache.remaining(STARTS[3], DOOR, HOUR)
    way = cache.way(STARTS[3], DOOR, HOUR)
    assert way is not None
    for one, other in pairwise(way):
        middle = ((one[0] + other[0]) / 2, (one[1] + other[1]) / 2)
        nearest = city.streets.nearest(*city.streets.to_xy(*middle))
        assert nearest.off_street_m < NARROWEST_M


def test_way__further_along_the_same_street__ends_in_the_same_points(cache: TravelTimeCache):
    cache.remaining(STARTS[5], DOOR, HOUR)
    whole = cache.way(STARTS[5], DOOR, HOUR)
    assert whole is not None
    nearer = ((whole[0][0] + whole[1][0]) / 2, (whole[0][1] + whole[1][1]) / 2)
    cache.remaining(nearer, DOOR, HOUR)
    rest = cache.way(nearer, DOOR, HOUR)
    assert rest is not None
    assert rest[-3:] == whole[-3:]
    assert length_m(rest) < length_m(whole)


def test_way__start_beside_the_door__is_short(cache: TravelTimeCache):
    start = (DOOR[0] + 0.0001, DOOR[1])
    cache.remaining(start, DOOR, HOUR)
    way = cache.way(start, DOOR, HOUR)
    assert way is not None
    assert length_m(way) < 1_000
