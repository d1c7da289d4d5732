"""RoadEta by road: what the API's answer says of an order in Florence, and of one elsewhere."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from data import BUNDLED_CITY
from data.cities import CityFolder, bundled_city
from eta.estimate import Estimator
from eta.features import City
from eta.model import EtaModel
from eta.streets import load_streets
from eta.travel_time_cache import TravelTimeCache
from tracking_api.track import road_eta as arrivals_module
from tracking_api.track.road_eta import RoadEta
from tracking_api.track.visibility import Event, Position, TrackedOrder

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
RESTAURANT, CUSTOMER, COURIER = (11.2558, 43.7696), (11.2610, 43.7780), (11.2500, 43.7720)


@pytest.fixture(scope="module")
def city() -> City:
    return City(load_streets(bundled_city()))


@pytest.fixture
def arrivals(city: City) -> RoadEta:
    return RoadEta({BUNDLED_CITY: Estimator(TravelTimeCache(city, EtaModel()))})


def spot(seconds: float, place: tuple[float, float]) -> Position:
    at = NOW + timedelta(seconds=seconds)
    return Position(at, at, *place)


def make_order(state: str = "picked_up", **members: object) -> TrackedOrder:
    began = NOW - timedelta(seconds=600)
    order = TrackedOrder(
        now=NOW,
        order_id=uuid4(),
        state=state,
        assignment_no=1,
        order_seq=5,
        restaurant_name="Da Mario",
        restaurant=RESTAURANT,
        destination=CUSTOMER,
        dwell_min_s=30.0,
        position=spot(0, COURIER),
        assigned_at=began,
        driver_id="anna",
        city=BUNDLED_CITY,
    )
    return replace(order, **members)  # type: ignore[arg-type]


def test_arrival__on_the_street_graph__is_by_road_with_a_band(arrivals: RoadEta):
    eta = arrivals(make_order())
    assert eta is not None
    assert (eta.route, eta.speeds) == ("road", "assumed")
    assert NOW < eta.p10_at < eta.arrives_at < eta.p90_at
    assert 1_130 < eta.distance_m < 3_000  # 1,130 m as the crow flies
    assert eta.as_of == NOW


def test_arrival__before_pick_up__is_by_the_restaurant_and_its_wait(arrivals: RoadEta):
    to_restaurant, to_customer = arrivals(make_order("assigned")), arrivals(make_order())
    assert to_restaurant is not None
    assert to_customer is not None
    assert to_restaurant.distance_m > to_customer.distance_m
    assert "at the restaurant" in to_restaurant.basis


def test_arrival__having_waited_at_the_restaurant__is_never_later_than_at_first(
    arrivals: RoadEta,
):
    def seconds(waited_s: float) -> int:
        arrived = Event(3, "at_restaurant", "gps", NOW - timedelta(seconds=waited_s), 1)
        eta = arrivals(make_order("at_restaurant", events=[arrived]))
        assert eta is not None
        return eta.seconds

    assert seconds(0) > seconds(120) > seconds(240)


def test_arrival__a_city_at_ten_times_the_speed__takes_a_tenth_of_the_time(arrivals: RoadEta):
    real, fast = arrivals(make_order()), arrivals(make_order(pace=10.0))
    assert real is not None
    assert fast is not None
    assert fast.seconds == pytest.approx(real.seconds / 10, abs=1)


@pytest.mark.parametrize(("took_s", "later"), [(1500, True), (60, False)])
def test_arrival__the_ride_so_far_slower_or_faster_than_usual__moves_the_rest(
    arrivals: RoadEta, took_s: float, later: bool
):
    picked_up = Event(4, "picked_up", "driver", NOW - timedelta(seconds=took_s), 1)
    far_west = spot(-took_s, (11.2300, 43.7750))  # 165 s by road, as assumed
    usual = arrivals(make_order(events=[picked_up]))
    seen = arrivals(make_order(events=[picked_up], trail=[far_west]))
    assert usual is not None
    assert seen is not None
    assert seen.seconds > usual.seconds * 1.2 if later else seen.seconds < usual.seconds * 0.85


def test_arrival__outside_the_street_graph__is_the_straight_line_and_its_basis_states_it(
    arrivals: RoadEta,
):
    paris = {"position": spot(0, (2.35, 48.85)), "destination": (2.36, 48.86)}
    eta = arrivals(make_order(**paris))
    assert eta is not None
    assert (eta.route, eta.speeds) == ("straight_line", "assumed")
    assert eta.p10_at < eta.arrives_at < eta.p90_at


def test_arrival__more_new_doors_than_the_budget__is_the_straight_line_at_first(
    city: City,
):
    now = [100.0]
    arrivals = RoadEta(
        {
            BUNDLED_CITY: Estimator(
                TravelTimeCache(city, EtaModel(), clock=lambda: now[0], max_runs_per_s=1)
            )
        }
    )
    other = make_order(destination=(11.2570, 43.7760))
    routes = [eta.route for order in (make_order(), other) if (eta := arrivals(order))]
    assert routes == ["road", "straight_line"]
    now[0] += 1
    eta = arrivals(other)
    assert eta is not None
    assert eta.route == "road"


def test_arrival__overdue__is_now_and_the_band_never_past(arrivals: RoadEta):
    eta = arrivals(make_order(position=spot(-290, CUSTOMER)))
    assert eta is not None
    assert (eta.seconds, eta.arrives_at, eta.p10_at) == (0, NOW, NOW)


@pytest.mark.parametrize("state", ["confirmed", "at_customer", "delivered", "cancelled"])
def test_arrival__no_driver_under_way__is_none(arrivals: RoadEta, state: str):
    assert arrivals(make_order(state)) is None


def test_arrival__position_lost__is_none(arrivals: RoadEta):
    assert arrivals(make_order(position=spot(-301, COURIER))) is None


async def test_arrival__until_the_graph_is_loaded__is_the_straight_line(monkeypatch, city):
    may_load, taken_up = threading.Event(), asyncio.Event()

    def load(_: CityFolder) -> Estimator:
        may_load.wait()
        return Estimator(TravelTimeCache(city, EtaModel()))

    async def read_model(_: int) -> None:
        taken_up.set()

    monkeypatch.setattr(arrivals_module, "GRAPH_AFTER_S", 0)
    monkeypatch.setattr(arrivals_module, "load_estimator", load)
    arrivals = RoadEta()
    keeping = asyncio.create_task(arrivals.keep_model_current(read_model))
    before = arrivals(make_order())
    may_load.set()
    await taken_up.wait()
    after = arrivals(make_order())
    keeping.cancel()
    assert [one and one.route for one in (before, after)] == ["straight_line", "road"]


def test_tracking_api__when_it_starts__has_not_loaded_the_graph_s_libraries():
    code = "import sys, tracking_api.__main__; print([n for n in ('scipy',) if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_graph__while_viewers_are_admitted__is_not_loaded_yet(monkeypatch, city):
    busy = iter([True, True, False])
    loaded: list[list[bool]] = []
    taken_up = asyncio.Event()

    def load(_: CityFolder) -> Estimator:
        loaded.append(list(busy))
        return Estimator(TravelTimeCache(city, EtaModel()))

    async def read_model(_: int) -> None:
        taken_up.set()

    monkeypatch.setattr(arrivals_module, "GRAPH_AFTER_S", 0)
    monkeypatch.setattr(arrivals_module, "BUSY_RETRY_S", 0)
    monkeypatch.setattr(arrivals_module, "load_estimator", load)
    keeping = asyncio.create_task(RoadEta().keep_model_current(read_model, lambda: next(busy)))
    await taken_up.wait()
    keeping.cancel()
    assert loaded == [[]]
