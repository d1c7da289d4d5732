"""The learner on rides at known speeds: a synthetic town of 12 x 12 nodes, in which couriers ride
at the speeds that the test sets, with a fix every 20 s. Independent of the couriers' simulation.
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
from eta.model import PRIOR_MPS, STREET_CLASSES, EtaModel, Phase, RouteChoice
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
    """A town in which each fourth street is a primary one."""
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
    choice: RouteChoice = RouteChoice.SPEEDS,
) -> Delivery:
    """One delivery: ride, wait 60 to 300 s, ride, at the true speeds."""
    streets, roads = town.streets, town.roads
    stops = [streets.nearest(*rng.choice(streets.nodes)) for _ in range(3)]
    truth = replace(
        EtaModel(), crossing_s=0.0,
        street_mps=tuple((TRUE_MPS.get(n, mps),) * 24 for n, mps in enumerate(PRIOR_MPS)),
    )  # fmt: skip
    edge_s = town.edge_seconds(truth, 0)
    rush = RUSH_FACTOR if at.hour == 18 else 1.0
    now, trail, instants = at, [], []
    for start, goal in ((stops[0], stops[1]), (stops[1], stops[2])):
        factor = pace * rush * math.exp(rng.gauss(0, noise))
        route = roads.shortest_path_tree(goal, town.routing_costs(choice, edge_s)).route_from(start)
        started_at, due_s, elapsed_s = now, 0.0, 0.0
        for segment in route:
            duration_s = roads.cost_s(segment, edge_s) * factor
            street = streets.streets[roads.street_of[segment.edge]]
            while due_s <= elapsed_s + duration_s and duration_s > 0:
                share = (due_s - elapsed_s) / duration_s
                along = (segment.from_m + (segment.to_m - segment.from_m) * share) / BLOCK_M
                (x1, y1), (x2, y2) = street.points
                place = (x1 + (x2 - x1) * along, y1 + (y2 - y1) * along)
                trail.append(
                    Observation(started_at + timedelta(seconds=due_s), streets.to_lon_lat(*place))
                )
                due_s += 20.0
            elapsed_s += duration_s
        now = started_at + timedelta(seconds=elapsed_s)
        instants.append(now)
        now += timedelta(seconds=rng.uniform(60, 300))
        instants.append(now)
    places = [streets.to_lon_lat(*stop.point) for stop in stops]
    return Delivery(
        driver_id, places[1], places[2], at, instants[0], instants[1], instants[2], trail
    )


def deliveries(
    town: City, seed: int, count: int, noise: float = 0.1, choice: RouteChoice = RouteChoice.SPEEDS
) -> list[Delivery]:
    rng = random.Random(seed)
    made = []
    for number in range(count):
        driver_id, pace = (("anna", FAST), ("bruno", SLOW), ("carla", 1.0))[number % 3]
        at = NOON + timedelta(days=number // 40, hours=rng.choice([0, 6]))
        made.append(deliver(town, rng, driver_id, pace, at, noise, choice))
    return made


@pytest.fixture(scope="module")
def learned(town: City) -> EtaModel:
    return learn({"": town}, deliveries(town, 1, 240), NOON)


def test_learn__rides_at_known_speeds__finds_the_speeds_by_class_and_hour(learned: EtaModel):
    mean_pace = math.exp((math.log(FAST) + math.log(SLOW)) / 3)
    for number, mps in TRUE_MPS.items():
        assert learned.street_mps[number][12] == pytest.approx(mps / mean_pace, rel=0.12)
        slower = learned.street_mps[number][12] / learned.street_mps[number][18]
        assert slower == pytest.approx(RUSH_FACTOR, rel=0.12)


def test_learn__drivers_of_known_paces__finds_the_ratio_of_their_paces(learned: EtaModel):
    pace = learned.driver_pace
    assert pace["bruno"] / pace["anna"] == pytest.approx(SLOW / FAST, rel=0.1)


def test_learn__a_class_without_rides__keeps_the_prior_adjusted_for_the_hour(learned: EtaModel):
    trunk = STREET_CLASSES.index("trunk")
    assert learned.street_mps[trunk][3] == pytest.approx(PRIOR_MPS[trunk])
    assert learned.street_mps[trunk][18] < learned.street_mps[trunk][12]


def test_learn__waits__finds_their_quantiles(learned: EtaModel):
    assert learned.wait_s[10] == pytest.approx(180, abs=25)


def test_learn__no_deliveries__returns_the_prior_without_learned_at(town: City):
    model = learn({"": town}, [], NOON)
    assert model.learned_at is None
    assert model == EtaModel()


def test_learn__two_deliveries__stays_near_the_prior(town: City):
    model = learn({"": town}, deliveries(town, 3, 2), NOON)
    assert model.street_mps[RESIDENTIAL][12] == pytest.approx(PRIOR_MPS[RESIDENTIAL], rel=0.25)


def test_band__held_out_deliveries__contains_about_four_of_five(town: City, learned: EtaModel):
    estimator = Estimator(TravelTimeCache(town, learned, max_runs_per_s=math.inf))
    inside, errors_learned, errors_prior = [], [], []
    prior = Estimator(TravelTimeCache(town, EtaModel(), max_runs_per_s=math.inf))
    for one in deliveries(town, 2, 90):
        for task, remaining_s in one.tasks():
            if task.phase is not Phase.TO_CUSTOMER:
                continue
            by_learned, by_prior = estimator.estimate(task), prior.estimate(task)
            assert by_learned is not None
            assert by_prior is not None
            inside.append(by_learned.p10_s <= remaining_s <= by_learned.p90_s)
            errors_learned.append(abs(by_learned.seconds - remaining_s))
            errors_prior.append(abs(by_prior.seconds - remaining_s))
    assert 0.72 <= np.mean(inside) <= 0.88
    assert np.median(errors_learned) < 0.5 * np.median(errors_prior)


@pytest.mark.parametrize("choice", [*RouteChoice])
def test_learn__routes_by_limits_or_by_speeds__finds_the_route_choice(
    town: City, choice: RouteChoice
):
    assert learn({"": town}, deliveries(town, 5, 60, choice=choice), NOON).route_choice is choice


def test_remaining__a_fix_near_two_streets__starts_on_the_one_towards_the_door(town: City):
    travel_times = TravelTimeCache(town, EtaModel(), max_runs_per_s=math.inf)
    to_lon_lat = town.streets.to_lon_lat
    door = to_lon_lat(2 * BLOCK_M, 1.0)
    on_it, off_it = (
        travel_times.remaining(to_lon_lat(BLOCK_M + 6.0, y), door, 12) for y in (0.0, 7.0)
    )
    assert on_it is not None
    assert off_it is not None
    assert off_it.metres == pytest.approx(on_it.metres, abs=2)


def test_learn__a_demo_at_ten_times_the_speed__finds_the_same_speeds(town: City):
    fast = [ten_times(one) for one in deliveries(town, 1, 60)]
    slow = deliveries(town, 1, 60)
    real, demo = learn({"": town}, slow, NOON), learn({"": town}, fast, NOON)
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


def test_codec__a_learned_model__survives_a_round_trip(town: City, learned: EtaModel):
    metres = metres_ridden({"": town}, deliveries(town, 1, 10), learned).tolist()
    written = model_to_json(learned, metres) | {"model_id": 7}
    read = model_from_json(written)
    assert read.street_mps == learned.street_mps
    assert read.driver_pace == learned.driver_pace
    assert read.route_choice is learned.route_choice
    assert (read.model_id, read.learned_at) == (7, NOON)
    for seconds in (30.0, 200.0, 1000.0, 5000.0):
        for phase in Phase:
            ours, theirs = learned.band(phase, seconds), read.band(phase, seconds)
            assert (ours.p10, ours.p50, ours.p90) == (theirs.p10, theirs.p50, theirs.p90)
