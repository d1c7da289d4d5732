"""What is learned of rides whose speeds are known: a made-up town of 12 x 12 corners, where
couriers ride with the speeds that the test chose, and a phone sees them each 20 s.

Nothing of the couriers' simulation is in here; it takes about 3 s.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from eta.codec import model_from_json, model_to_json
from eta.estimate import Estimator, Observation
from eta.features import City
from eta.learning import learn, metres_ridden
from eta.model import PRIOR_MPS, STREET_CLASSES, EtaModel, Phase, Ways
from eta.rides import Delivery
from eta.streets import Street, Streets
from eta.travel_time_cache import TravelTimeCache

NOON = datetime(2026, 1, 12, 12, tzinfo=UTC)
SIDE, BLOCK_M = 12, 250.0
PRIMARY, RESIDENTIAL = (STREET_CLASSES.index(name) for name in ("primary", "residential"))
TRUE_MPS = {PRIMARY: 9.0, RESIDENTIAL: 3.6}
RUSH_FACTOR = 1.5  # at 18:00, of time
SLOW, FAST = 1.3, 0.8  # two drivers' paces


@pytest.fixture(scope="module")
def town() -> City:
    """Each fourth street is a primary one."""
    nodes = [(BLOCK_M * (n % SIDE), BLOCK_M * (n // SIDE)) for n in range(SIDE * SIDE)]
    streets = []
    for n, (x, y) in enumerate(nodes):
        for step, along in ((1, x), (SIDE, y)):
            if along < BLOCK_M * (SIDE - 1):
                row = n // SIDE if step == 1 else n % SIDE
                highway = "primary" if row % 4 == 0 else "residential"
                ends = (nodes[n], nodes[n + step])
                streets.append(Street(n, n + step, False, 10.0, highway, ends, (0.0, BLOCK_M)))
    return City(Streets((11.25, 43.77), streets, nodes, ZoneInfo("UTC")))


def deliver(
    town: City,
    rng: random.Random,
    driver_id: str,
    pace: float,
    at: datetime,
    noise: float,
    ways: Ways = Ways.SPEEDS,
) -> Delivery:
    """One delivery: ride, wait 60 to 300 s, ride, at the true speeds."""
    streets, roads = town.streets, town.roads
    spots = [streets.nearest(*rng.choice(streets.nodes)) for _ in range(3)]
    truth = replace(
        EtaModel(), crossing_s=0.0,
        street_mps=tuple((TRUE_MPS.get(n, mps),) * 24 for n, mps in enumerate(PRIOR_MPS)),
    )  # fmt: skip
    way_s = town.way_s(truth, 0)
    rush = RUSH_FACTOR if at.hour == 18 else 1.0
    now, trail, marks = at, [], []
    for start, goal in ((spots[0], spots[1]), (spots[1], spots[2])):
        factor = pace * rush * math.exp(rng.gauss(0, noise))
        route = roads.towards(goal, town.chosen_by(ways, way_s)).route_from(start)
        begun, due_s, gone_s = now, 0.0, 0.0
        for part in route:
            took_s = roads.cost_s(part, way_s) * factor
            street = streets.streets[roads.street_of[part.way]]
            while due_s <= gone_s + took_s and took_s > 0:
                share = (due_s - gone_s) / took_s
                along = (part.from_m + (part.to_m - part.from_m) * share) / BLOCK_M
                (x1, y1), (x2, y2) = street.points
                place = (x1 + (x2 - x1) * along, y1 + (y2 - y1) * along)
                trail.append(
                    Observation(begun + timedelta(seconds=due_s), streets.to_lon_lat(*place))
                )
                due_s += 20.0
            gone_s += took_s
        now = begun + timedelta(seconds=gone_s)
        marks.append(now)
        now += timedelta(seconds=rng.uniform(60, 300))
        marks.append(now)
    places = [streets.to_lon_lat(*spot.point) for spot in spots]
    return Delivery(driver_id, places[1], places[2], at, marks[0], marks[1], marks[2], trail)


def deliveries(
    town: City, seed: int, count: int, noise: float = 0.1, ways: Ways = Ways.SPEEDS
) -> list[Delivery]:
    rng = random.Random(seed)
    made = []
    for number in range(count):
        driver_id, pace = (("anna", FAST), ("bruno", SLOW), ("carla", 1.0))[number % 3]
        at = NOON + timedelta(days=number // 40, hours=rng.choice([0, 6]))
        made.append(deliver(town, rng, driver_id, pace, at, noise, ways))
    return made


@pytest.fixture(scope="module")
def learned(town: City) -> EtaModel:
    return learn(town, deliveries(town, 1, 240), NOON)


def test_learn__rides_at_known_speeds__finds_the_speeds_by_class_and_hour(learned: EtaModel):
    mean_pace = math.exp((math.log(FAST) + math.log(SLOW)) / 3)
    for number, mps in TRUE_MPS.items():
        assert learned.street_mps[number][12] == pytest.approx(mps / mean_pace, rel=0.12)
        slower = learned.street_mps[number][12] / learned.street_mps[number][18]
        assert slower == pytest.approx(RUSH_FACTOR, rel=0.12)


def test_learn__drivers_of_known_paces__are_told_apart(learned: EtaModel):
    pace = learned.driver_pace
    assert pace["bruno"] / pace["anna"] == pytest.approx(SLOW / FAST, rel=0.1)


def test_learn__a_class_that_nobody_rode_on__keeps_the_prior_but_for_the_hour(learned: EtaModel):
    trunk = STREET_CLASSES.index("trunk")
    assert learned.street_mps[trunk][3] == pytest.approx(PRIOR_MPS[trunk])
    assert learned.street_mps[trunk][18] < learned.street_mps[trunk][12]


def test_learn__waits__are_their_quantiles(learned: EtaModel):
    assert learned.wait_s[10] == pytest.approx(180, abs=25)


def test_learn__nothing__is_the_prior_and_says_so(town: City):
    model = learn(town, [], NOON)
    assert model.learned_at is None
    assert model == EtaModel()


def test_learn__two_deliveries__hardly_move_the_prior(town: City):
    model = learn(town, deliveries(town, 3, 2), NOON)
    assert model.street_mps[RESIDENTIAL][12] == pytest.approx(PRIOR_MPS[RESIDENTIAL], rel=0.25)


def test_band__on_deliveries_not_learned_from__holds_about_four_of_five(
    town: City, learned: EtaModel
):
    estimator = Estimator(TravelTimeCache(town, learned, most_made_per_s=math.inf))
    inside, off_learned, off_prior = [], [], []
    prior = Estimator(TravelTimeCache(town, EtaModel(), most_made_per_s=math.inf))
    for one in deliveries(town, 2, 90):
        for task, left_s in one.tasks():
            if task.phase is not Phase.TO_CUSTOMER:
                continue
            known, guessed = estimator.estimate(task), prior.estimate(task)
            assert known is not None
            assert guessed is not None
            inside.append(known.p10_s <= left_s <= known.p90_s)
            off_learned.append(abs(known.seconds - left_s))
            off_prior.append(abs(guessed.seconds - left_s))
    assert 0.72 <= np.mean(inside) <= 0.88
    assert np.median(off_learned) < 0.5 * np.median(off_prior)


@pytest.mark.parametrize("ways", [*Ways])
def test_learn__which_ways_couriers_take__is_found_out(town: City, ways: Ways):
    assert learn(town, deliveries(town, 5, 60, ways=ways), NOON).ways is ways


def test_left__a_fix_as_near_to_the_wrong_street__is_on_the_one_towards_the_door(town: City):
    doors = TravelTimeCache(town, EtaModel(), most_made_per_s=math.inf)
    to_lon_lat = town.streets.to_lon_lat
    door = to_lon_lat(2 * BLOCK_M, 1.0)
    on_it, off_it = (doors.left(to_lon_lat(BLOCK_M + 6.0, y), door, 12) for y in (0.0, 7.0))
    assert on_it is not None
    assert off_it is not None
    assert off_it.metres == pytest.approx(on_it.metres, abs=2)


def test_learn__a_demo_at_ten_times_the_speed__learns_the_citys_own_speeds(town: City):
    fast = [ten_times(one) for one in deliveries(town, 1, 60)]
    slow = deliveries(town, 1, 60)
    real, demo = learn(town, slow, NOON), learn(town, fast, NOON)
    assert demo.street_mps[PRIMARY][12] == pytest.approx(real.street_mps[PRIMARY][12], rel=0.05)
    assert demo.wait_s[10] == pytest.approx(real.wait_s[10], rel=0.05)


def ten_times(one: Delivery) -> Delivery:
    def at(instant: datetime) -> datetime:
        return one.assigned_at + (instant - one.assigned_at) / 10

    assert one.at_restaurant_at is not None
    return replace(
        one, pace=10.0, trail=[Observation(at(seen.at), seen.lon_lat) for seen in one.trail],
        at_restaurant_at=at(one.at_restaurant_at), picked_up_at=at(one.picked_up_at),
        at_customer_at=at(one.at_customer_at),
    )  # fmt: skip


def test_codec__a_learned_model__is_the_same_after_writing_and_reading(
    town: City, learned: EtaModel
):
    metres = metres_ridden(town, deliveries(town, 1, 10), learned).tolist()
    written = model_to_json(learned, metres) | {"model_id": 7}
    read = model_from_json(written)
    assert read.street_mps == learned.street_mps
    assert read.driver_pace == learned.driver_pace
    assert read.ways is learned.ways
    assert (read.model_id, read.learned_at) == (7, NOON)
    for seconds in (30.0, 200.0, 1000.0, 5000.0):
        for phase in Phase:
            ours, theirs = learned.band(phase, seconds), read.band(phase, seconds)
            assert (ours.p10, ours.p50, ours.p90) == (theirs.p10, theirs.p50, theirs.p90)
