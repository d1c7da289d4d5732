"""What is kept of routes to a door, and how far a run reaches."""

from __future__ import annotations

import math
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from eta.features import City
from eta.model import STREET_CLASSES, EtaModel
from eta.streets import Street, Streets
from eta.travel_time_cache import TravelTimeCache

BLOCK_M = 200.0
BLOCKS = 60  # 12 km of one straight street
MIDDLE = (11.25, 43.77)


@pytest.fixture(scope="module")
def city() -> City:
    nodes = [(BLOCK_M * n, 0.0) for n in range(BLOCKS + 1)]
    streets = [
        Street(n, n + 1, False, 10.0, "residential", ends, (0.0, BLOCK_M))
        for n, ends in enumerate(pairwise(nodes))
    ]
    return City(Streets(MIDDLE, streets, nodes, ZoneInfo("UTC")))


class Runs:
    """A cache, and how often it computed routes."""

    def __init__(self, city: City, model: EtaModel, max_runs_per_s: float = math.inf) -> None:
        self.now_s = 0.0
        self.cache = TravelTimeCache(city, model, lambda: self.now_s, max_runs_per_s)
        self.door = city.streets.to_lon_lat(30.0, 0.0)

    def metres_from(self, east_m: float, hour: int = 12) -> float | None:
        start = self.cache.city.streets.to_lon_lat(east_m, 0.0)
        found = self.cache.remaining(start, self.door, hour)
        return None if found is None else found.metres


@pytest.mark.parametrize("first_m", [300.0, 5_000.0])
def test_remaining__a_place_beyond_the_reach_of_the_first_run__is_found_by_a_second_one(
    city: City, first_m: float
) -> None:
    runs = Runs(city, EtaModel())
    for east_m in (first_m, 1_000.0, 11_900.0, 400.0):
        assert runs.metres_from(east_m) == pytest.approx(east_m - 30.0, abs=0.6)


def test_remaining__a_second_run_over_the_limit__waits_for_the_next_second(city: City) -> None:
    runs = Runs(city, EtaModel(), max_runs_per_s=1)
    assert runs.metres_from(300.0) is not None
    assert runs.metres_from(11_900.0) is None
    assert runs.metres_from(310.0) is not None  # within the reach of the first one
    runs.now_s += 1
    assert runs.metres_from(11_900.0) is not None


def test_remaining__an_hour_with_the_same_speeds__needs_no_run(city: City) -> None:
    runs = Runs(city, EtaModel(), max_runs_per_s=1)
    at_noon = runs.metres_from(300.0, 12)
    assert (runs.metres_from(300.0, 13), runs.metres_from(310.0, 3)) != (None, None)
    assert runs.metres_from(300.0, 13) == at_noon


def test_remaining__an_hour_with_other_speeds__is_computed_for_itself(city: City) -> None:
    slow_at_18 = tuple(2.0 if hour == 18 else 4.0 for hour in range(24))
    runs = Runs(city, EtaModel(street_mps=(slow_at_18,) * len(STREET_CLASSES)))
    start = city.streets.to_lon_lat(2_030.0, 0.0)
    by_hour = [runs.cache.remaining(start, runs.door, hour) for hour in (12, 18)]
    seconds = [one.seconds for one in by_hour if one is not None]
    assert seconds == pytest.approx([500.0, 1_000.0], rel=0.05)


def test_remaining__a_new_model__forgets_what_is_held(city: City) -> None:
    runs = Runs(city, EtaModel())
    start = city.streets.to_lon_lat(2_030.0, 0.0)
    before = runs.cache.remaining(start, runs.door, 12)
    fast = ((20.0,) * 24,) * len(STREET_CLASSES)
    runs.cache.set_model(EtaModel(street_mps=fast, model_id=1))
    after = runs.cache.remaining(start, runs.door, 12)
    assert before is not None
    assert after is not None
    assert after.seconds < before.seconds / 2
