"""What couriers truly do on Florence's streets, and what their phones make of it.

The claims are measured on simulated seconds; no server and no clock of ours is involved.
"""

from __future__ import annotations

import itertools
import math
import random
from statistics import median

import numpy as np
import pytest
from shapely import LineString, STRtree, points

from data.cities import bundled_city
from simulators.couriers.demand import (
    Demand,
    Quantiles,
    Restaurant,
    place_restaurants,
    read_calibration,
    read_restaurants,
)
from simulators.couriers.motion import WALK_MPS, Course, Vehicle, door_of
from simulators.couriers.orders import scaled_policy
from simulators.couriers.receiver import Receiver
from simulators.couriers.streets import Streets, load_streets

REPORT_EVERY_S = 4.0
MOVING_MPS = 0.5


@pytest.fixture(scope="module")
def streets() -> Streets:
    return load_streets(bundled_city())


@pytest.fixture(scope="module")
def restaurants(streets: Streets) -> list[Restaurant]:
    return place_restaurants(streets, read_restaurants(bundled_city().restaurants))


@pytest.fixture(scope="module")
def demand(streets: Streets, restaurants: list[Restaurant]) -> Demand:
    return Demand(streets, restaurants, random.Random(1), bundled_city().buildings)


@pytest.fixture(scope="module")
def deliveries(streets: Streets, demand: Demand) -> list[tuple[Vehicle, Course]]:
    """Whole deliveries: ride to the restaurant, wait, ride to the door, walk up, hand over."""
    rng = random.Random(2)
    done = []
    for number in range(60):
        vehicle = list(Vehicle)[number % len(Vehicle)]
        restaurant = demand.restaurant()
        door = demand.door(restaurant)
        start = demand.restaurant().place
        course = Course(0.0, start.point)
        course.ride(streets.way(start, restaurant.place), vehicle, rng)
        course.go(door_of(restaurant.place, restaurant.point, rng), WALK_MPS)
        course.wait(demand.pickup_s())
        course.ride(streets.way(streets.nearest(*course.end), door.place), vehicle, rng)
        course.go(door_of(door.place, door.point, rng), WALK_MPS)
        course.wait(demand.dropoff_s())
        done.append((vehicle, course))
    return done


def fixes_of(course: Course) -> list[tuple[float, float, float]]:
    instants = np.arange(0, course.end_s, REPORT_EVERY_S)
    return [(here.x, here.y, here.speed_mps) for here in map(course.at, instants.tolist())]


def test_deliveries__95_percent_of_true_positions__within_5_m_of_a_street(
    streets: Streets, deliveries: list[tuple[Vehicle, Course]]
) -> None:
    places = [(x, y) for _, course in deliveries for x, y, _ in fixes_of(course)]
    distances = distance_to_streets(streets, places)
    assert len(distances) > 10_000
    assert np.quantile(distances, 0.95) <= 5.0
    assert distances.max() > 4.0  # they do walk up to doors


def distance_to_streets(
    streets: Streets, places: list[tuple[float, float]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Measured by Shapely, without the simulator's own index."""
    tree = STRtree([LineString(street.points) for street in streets.streets])
    _, distances = tree.query_nearest(points(places), return_distance=True, all_matches=False)
    return np.asarray(distances)


@pytest.mark.parametrize("vehicle", list(Vehicle))
def test_deliveries__median_moving_speed__is_3_to_8_mps(
    vehicle: Vehicle, deliveries: list[tuple[Vehicle, Course]]
) -> None:
    speeds = [
        speed_mps
        for used, course in deliveries
        if used is vehicle
        for _, _, speed_mps in fixes_of(course)
        if speed_mps > MOVING_MPS
    ]
    assert 3 <= median(speeds) <= 8


def test_deliveries__couriers__also_stand_still(deliveries: list[tuple[Vehicle, Course]]) -> None:
    speeds = [place[2] for _, course in deliveries for place in fixes_of(course)]
    assert 0.1 < sum(speed < MOVING_MPS for speed in speeds) / len(speeds) < 0.7


def test_course__between_fixes__never_jumps(deliveries: list[tuple[Vehicle, Course]]) -> None:
    for _, course in deliveries:
        for (x1, y1, _), (x2, y2, _) in itertools.pairwise(fixes_of(course)):
            assert math.hypot(x2 - x1, y2 - y1) <= 10 * REPORT_EVERY_S


def test_way__on_one_way_streets__is_never_driven_backwards(
    streets: Streets, demand: Demand
) -> None:
    one_way = {
        pair
        for street in streets.streets
        if street.one_way
        for pair in itertools.pairwise(street.points)
    }
    two_way = {
        pair
        for street in streets.streets
        if not street.one_way
        for pair in itertools.pairwise(street.points)
    }
    for _ in range(20):
        restaurant = demand.restaurant()
        for stretch in streets.way(restaurant.place, demand.door(restaurant).place):
            for start, end in itertools.pairwise(stretch.points):
                backwards = (end, start) in one_way and (start, end) not in one_way
                assert not (backwards and (end, start) not in two_way)


def test_way__between_two_places__is_connected(streets: Streets, demand: Demand) -> None:
    for _ in range(20):
        restaurant = demand.restaurant()
        door = demand.door(restaurant)
        way = [p for s in streets.way(restaurant.place, door.place) for p in s.points]
        assert math.dist(way[0], restaurant.place.point) < 0.01
        assert math.dist(way[-1], door.place.point) < 0.01
        assert max(s.limit_mps for s in streets.way(restaurant.place, door.place)) < 30
        for stretch, following in itertools.pairwise(streets.way(restaurant.place, door.place)):
            assert math.dist(stretch.points[-1], following.points[0]) < 3.0


def test_streets__to_metres_and_back__is_the_same_position(streets: Streets) -> None:
    assert streets.to_lon_lat(*streets.to_xy(11.2558, 43.7696)) == pytest.approx((11.2558, 43.7696))


def test_nearest__far_outside_the_city__is_refused(streets: Streets) -> None:
    with pytest.raises(ValueError, match="too far"):
        streets.nearest(100_000, 100_000)


def test_receiver__errors__have_a_median_of_5_m_and_1_percent_beyond_50_m() -> None:
    rng = random.Random(3)
    errors, within = [], 0
    receivers = [Receiver(rng) for _ in range(200)]
    for number in range(400):
        for receiver in receivers:
            x, y, accuracy_m = receiver.observe(0.0, 0.0, number * REPORT_EVERY_S)
            error_m = math.hypot(x, y)
            errors.append(error_m)
            within += error_m <= accuracy_m
    assert 4.5 <= median(errors) <= 5.5
    assert 0.008 <= sum(error > 50 for error in errors) / len(errors) <= 0.012
    assert 0.6 <= within / len(errors) <= 0.76  # accuracy_m is an honest 68 % radius


def test_receiver__a_bad_fix__has_a_bad_accuracy() -> None:
    receiver = Receiver(random.Random(4))
    seen = [receiver.observe(0.0, 0.0, number * REPORT_EVERY_S) for number in range(20_000)]
    bad = [accuracy_m for x, y, accuracy_m in seen if math.hypot(x, y) > 50]
    assert min(bad) > 40
    assert max(accuracy_m for x, y, accuracy_m in seen if math.hypot(x, y) < 25) < 10


def test_demand__preparation_and_distance__follow_the_calibration(demand: Demand) -> None:
    known = read_calibration()
    minutes = sorted(demand.preparation_s() / 60 for _ in range(4000))
    assert minutes[2000] == pytest.approx(
        known["prep_minutes_ready_minus_placement"]["p50"], rel=0.1
    )
    assert minutes[3800] == pytest.approx(
        known["prep_minutes_ready_minus_placement"]["p95"], rel=0.1
    )
    pairs = [(restaurant := demand.restaurant(), demand.door(restaurant)) for _ in range(1000)]
    metres = sorted(math.dist(restaurant.point, door.point) for restaurant, door in pairs)
    expected = known["restaurant_to_customer_straight_m"]
    assert metres[500] == pytest.approx(expected["p50"], rel=0.12)
    assert metres[950] == pytest.approx(expected["p95"], rel=0.15)


def test_demand__doors_and_restaurants__are_close_enough_to_prove_arrivals(
    demand: Demand, restaurants: list[Restaurant]
) -> None:
    """The default policy enters at 60 m: street, noise and yard must fit into that."""
    assert len(restaurants) > 500
    assert max(one.place.off_street_m for one in restaurants) <= 30
    doors = [demand.door(demand.restaurant()).place.off_street_m for _ in range(300)]
    assert np.quantile(doors, 0.99) <= 25


def test_demand__orders_per_hour__follow_the_hourly_shares(
    streets: Streets, restaurants: list[Restaurant]
) -> None:
    calibration = read_calibration()
    shares = calibration["share_of_orders_by_hour_since_day_start"]
    demand = Demand(streets, restaurants, random.Random(5), bundled_city().buildings)

    def per_hour(hour: int) -> float:
        gaps = [demand.gap_s(100, hour * 3600, first_hour=0) for _ in range(3000)]
        return 3600 / (sum(gaps) / len(gaps))

    assert per_hour(9) / per_hour(7) == pytest.approx(shares["9"] / shares["7"], rel=0.1)
    at_start = 3600 / (sum(demand.gap_s(100, 0.0) for _ in range(3000)) / 3000)
    assert 1.2 <= at_start / 100 <= 2.4  # orders per courier-hour, as measured


def test_quantiles__given_points__are_exact() -> None:
    quantiles = Quantiles({"p5": 2.0, "p50": 15.0, "p95": 38.0})
    assert [quantiles.at(share) for share in (0.05, 0.5, 0.95)] == [2.0, 15.0, 38.0]
    assert quantiles.at(0.0) < 2.0 < quantiles.at(0.3) < 15.0 < 38.0 < quantiles.at(1.0)


def test_scaled_policy__speedup_10__divides_durations_and_keeps_radii() -> None:
    policy = scaled_policy(10)
    assert policy["dwell_min_s"] == 3.0
    assert policy["dwell_max_s"] == 12.0
    assert policy["arriving_min_s"] == 0.8
    assert not [name for name in policy if name.endswith("_m")]


def test_course__shifted__is_the_same_way_at_another_time() -> None:
    course = Course(0.0, (0.0, 0.0))
    course.go((100.0, 0.0), 5.0)
    course.wait(10.0)
    course.go((100.0, 50.0), 5.0)
    course.shift(1000.0)
    assert (course.start_s, course.end_s) == (1000.0, 1040.0)
    assert course.at(1010.0).x == pytest.approx(50.0)
    assert course.at(1010.0).heading_deg == pytest.approx(90.0)
    assert course.at(1025.0).speed_mps == 0.0
    assert (course.at(0.0).x, course.at(9999.0).y) == (0.0, 50.0)
