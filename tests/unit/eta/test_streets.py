"""The street graph: the fastest way and its length, on four streets that can be checked by hand,
and on Florence's.

      C ===== D          A-B is one way; B-C and C-D are not; A-D is long and slow
      |       |
      |       |  (A-D: 900 m at 3 m/s)
      |       |
      B <---- A
"""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from eta.streets import Roads, Street, Streets, load_firenze

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


def seconds(roads: Roads) -> np.ndarray:
    mps = np.array([one.limit_mps for one in roads.streets.streets])
    return roads.length_m / mps[roads.street_of]


def test_roads__with_the_one_way_street__is_the_short_way_round(square: Streets):
    roads = Roads(square)
    start, end = square.nearest(300, 0), square.nearest(200, 300)
    field = roads.towards(end, seconds(roads))
    # 300 m to B, 300 m to C, 200 m on: 800 m at 10 m/s
    assert field.seconds_from(start) == pytest.approx(80)
    assert [part.length_m for part in field.route_from(start)] == [300, 300, 200]


def test_roads__against_the_one_way_street__goes_all_around(square: Streets):
    roads = Roads(square)
    start, end = square.nearest(100, 0), square.nearest(300, 0)
    field = roads.towards(end, seconds(roads))
    # 100 m to B, 300 m, 400 m, then 900 m at 3 m/s to A and 100 m back: never backwards
    assert field.seconds_from(start) == pytest.approx(10 + 30 + 40 + 300 + 10)
    assert sum(part.length_m for part in field.route_from(start)) == pytest.approx(1800)


def test_roads__along_one_street__goes_straight_there_in_either_direction(square: Streets):
    roads = Roads(square)
    low, high = square.nearest(0, 50), square.nearest(0, 250)
    for start, end in ((low, high), (high, low)):
        route = roads.towards(end, seconds(roads)).route_from(start)
        assert [part.length_m for part in route] == [200]


def test_roads__metres_from_each_node__are_those_of_the_fastest_way(square: Streets):
    roads = Roads(square)
    field = roads.towards(square.nearest(0, 100), seconds(roads))
    assert field.sums_from_nodes(field.roads.length_m)[0].tolist() == [500, 100, 200, 600]


def test_roads__of_two_streets_between_the_same_corners__the_faster_is_taken(square: Streets):
    streets = [*square.streets, street(1, 2, B, (-200.0, 150.0), C, mps=30.0)]
    roads = Roads(Streets((11.25, 43.77), streets, [A, B, C, D]))
    end = roads.streets.nearest(200, 300)
    route = roads.towards(end, seconds(roads)).route_from(roads.streets.nearest(300, 0))
    assert [roads.street_of[part.way] for part in route] == [0, 4, 2]


def test_nearest__beyond_the_reach__is_none(square: Streets):
    assert square.nearest_within(200, -90, 100.0) is not None
    assert square.nearest_within(200, -110, 100.0) is None


def test_sums__from_each_node__are_of_the_ways_taken_and_not_of_others(square: Streets):
    roads = Roads(square)
    field = roads.towards(square.nearest(0, 100), seconds(roads))
    ways = np.ones(len(roads.length_m))
    metres, count = field.sums_from_nodes(roads.length_m, ways)
    assert metres.tolist() == [500, 100, 200, 600]
    assert count == pytest.approx([1 + 1 / 3, 1 / 3, 2 / 3, 1 + 2 / 3])  # the last is a part of one


def test_places__a_fix_between_two_streets__may_be_on_either_and_on_no_third(square: Streets):
    near_corner = square.places_within(20, 12, 100.0, blur_m=12.0)
    assert [(one.street, one.off_street_m) for one in near_corner] == [(0, 12.0), (1, 20.0)]
    assert [one.street for one in square.places_within(40, 12, 100.0, blur_m=12.0)] == [0]
    assert square.places_within(200, -110, 100.0, blur_m=12.0) == []


def test_firenze__any_place__is_reached_from_any_other_at_the_cost_of_its_parts():
    streets = load_firenze()
    roads, rng = Roads(streets), random.Random(1)
    way_s = seconds(roads)
    for _ in range(20):
        start, end = (streets.nearest(*rng.choice(streets.nodes)) for _ in range(2))
        field = roads.towards(end, way_s)
        route = field.route_from(start)
        cost_s = sum(roads.cost_s(part, way_s) for part in route)
        assert field.seconds_from(start) == pytest.approx(cost_s)
        _, first, node = min(field.leaving(start), key=lambda one: one[0])
        from_nodes_m = field.sums_from_nodes(field.roads.length_m)[0]
        metres = first.length_m + (0 if node is None else from_nodes_m[node])
        assert metres == pytest.approx(sum(part.length_m for part in route))
