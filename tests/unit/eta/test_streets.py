"""The street graph: fastest routes and their lengths, on four streets that can be checked by hand,
and on Florence's.

      C ===== D          A-B is one way; B-C and C-D are not; A-D is long and slow
      |       |
      |       |  (A-D: 900 m at 3 m/s)
      |       |
      B <---- A
"""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from data.cities import bundled_city
from eta.streets import DoorRoutes, RoadGraph, Street, StreetPoint, Streets, load_streets
from eta.streets.door_routes import Rest
from eta.streets.roads import Floats

A, B, C, D = (400.0, 0.0), (0.0, 0.0), (0.0, 300.0), (400.0, 300.0)


def street(
    u: int, v: int, *points: tuple[float, float], one_way: bool = False, mps: float = 10.0
) -> Street:
    along = [0.0]
    for before, after in itertools.pairwise(points):
        along.append(along[-1] + float(np.hypot(after[0] - before[0], after[1] - before[1])))
    return Street(u, v, one_way, mps, "residential", points, tuple(along))


@pytest.fixture
def square() -> Streets:
    streets = [
        street(0, 1, A, B, one_way=True),
        street(1, 2, B, C),
        street(2, 3, C, D),
        street(0, 3, A, (700.0, 0.0), (700.0, 300.0), D, mps=3.0),
    ]
    return Streets((11.25, 43.77), streets, [A, B, C, D])


def seconds(roads: RoadGraph) -> np.ndarray:
    mps = np.array([one.limit_mps for one in roads.streets.streets])
    return roads.length_m / mps[roads.street_of]


def rests_to(goal: StreetPoint, roads: RoadGraph, edge_values: Floats) -> list[Rest | None]:
    """The rest of the fastest route from each node, with values of edges for their seconds."""
    routes = DoorRoutes(roads, goal, roads.costs(seconds(roads)), edge_values, math.inf)
    return [routes.rest_from(node) for node in range(len(roads.node_of))]


def test_roads__with_the_one_way_street__takes_the_short_route(square: Streets):
    roads = RoadGraph(square)
    start, end = square.nearest(300, 0), square.nearest(200, 300)
    tree = roads.shortest_path_tree(end, seconds(roads))
    # 300 m to B, 300 m to C, 200 m on: 800 m at 10 m/s
    assert tree.seconds_from(start) == pytest.approx(80)
    assert [segment.length_m for segment in tree.route_from(start)] == [300, 300, 200]


def test_roads__against_the_one_way_street__takes_the_detour(square: Streets):
    roads = RoadGraph(square)
    start, end = square.nearest(100, 0), square.nearest(300, 0)
    tree = roads.shortest_path_tree(end, seconds(roads))
    # 100 m to B, 300 m, 400 m, then 900 m at 3 m/s to A and 100 m back: never backwards
    assert tree.seconds_from(start) == pytest.approx(10 + 30 + 40 + 300 + 10)
    assert sum(segment.length_m for segment in tree.route_from(start)) == pytest.approx(1800)


def test_roads__along_one_street__goes_straight_in_either_direction(square: Streets):
    roads = RoadGraph(square)
    low, high = square.nearest(0, 50), square.nearest(0, 250)
    for start, end in ((low, high), (high, low)):
        route = roads.shortest_path_tree(end, seconds(roads)).route_from(start)
        assert [segment.length_m for segment in route] == [200]


def test_sums__lengths__are_those_of_the_fastest_route(square: Streets):
    roads = RoadGraph(square)
    rests = rests_to(square.nearest(0, 100), roads, seconds(roads))
    assert [rest.metres for rest in rests] == [500, 100, 200, 600]


def test_roads__parallel_streets__takes_the_faster_one(square: Streets):
    streets = [*square.streets, street(1, 2, B, (-200.0, 150.0), C, mps=30.0)]
    roads = RoadGraph(Streets((11.25, 43.77), streets, [A, B, C, D]))
    end = roads.streets.nearest(200, 300)
    route = roads.shortest_path_tree(end, seconds(roads)).route_from(roads.streets.nearest(300, 0))
    assert [roads.street_of[segment.edge] for segment in route] == [0, 4, 2]


def test_nearest_within__beyond_the_limit__returns_none(square: Streets):
    assert square.nearest_within(200, -90, 100.0) is not None
    assert square.nearest_within(200, -110, 100.0) is None


def test_sums__of_a_partial_edge__counts_its_share(square: Streets):
    roads = RoadGraph(square)
    rests = rests_to(square.nearest(0, 100), roads, np.ones(len(roads.length_m)))
    assert [rest.metres for rest in rests] == [500, 100, 200, 600]
    assert [rest.seconds for rest in rests] == pytest.approx(
        [1 + 1 / 3, 1 / 3, 2 / 3, 1 + 2 / 3]
    )  # the last one is a partial edge


def test_candidates__a_fix_between_two_streets__returns_both_and_no_third(square: Streets):
    near_corner = square.candidates_within(20, 12, 100.0, blur_m=12.0)
    assert [(one.street, one.off_street_m) for one in near_corner] == [(0, 12.0), (1, 20.0)]
    assert [one.street for one in square.candidates_within(40, 12, 100.0, blur_m=12.0)] == [0]
    assert square.candidates_within(200, -110, 100.0, blur_m=12.0) == []


def test_bundled_city__random_routes__cost_the_sum_of_their_edges():
    streets = load_streets(bundled_city())
    roads, rng = RoadGraph(streets), random.Random(1)
    edge_s = seconds(roads)
    for _ in range(20):
        start, end = (streets.nearest(*rng.choice(streets.nodes)) for _ in range(2))
        tree = roads.shortest_path_tree(end, edge_s)
        route = tree.route_from(start)
        cost_s = sum(roads.cost_s(segment, edge_s) for segment in route)
        assert tree.seconds_from(start) == pytest.approx(cost_s)
        _, first, node = min(tree.departures(start), key=lambda one: one[0])
        rest = DoorRoutes(roads, end, roads.costs(edge_s), edge_s, math.inf).rest_from(node or 0)
        metres = first.length_m + (0 if node is None or rest is None else rest.metres)
        assert metres == pytest.approx(sum(segment.length_m for segment in route))


def test_nearest_within__random_points_of_a_city__is_no_farther_than_any_segment():
    streets, rng = load_streets(bundled_city()), random.Random(2)
    segments = np.array(
        [pair for one in streets.streets for pair in itertools.pairwise(one.points)]
    )
    starts, steps = segments[:, 0], segments[:, 1] - segments[:, 0]
    square = np.maximum((steps * steps).sum(1), 1e-9)
    for _ in range(50):
        x, y = (coordinate + rng.gauss(0, 60) for coordinate in rng.choice(streets.nodes))
        share = np.clip((((x, y) - starts) * steps).sum(1) / square, 0, 1)
        feet = starts + steps * share[:, None]
        nearest = streets.nearest(x, y)
        assert nearest.off_street_m == pytest.approx(np.hypot(*(feet - (x, y)).T).min(), abs=1e-6)
