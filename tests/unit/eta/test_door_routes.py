"""The routes to a door, compared with those of the tree."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from data.cities import bundled_city
from eta.features import City
from eta.model import EtaModel, RouteChoice
from eta.streets import DoorRoutes, load_streets

HOUR = 12


@pytest.fixture(scope="module")
def city() -> City:
    return City(load_streets(bundled_city()))


@pytest.mark.parametrize("choice", RouteChoice)
def test_door_routes__random_places__are_as_long_as_in_the_tree(city: City, choice: RouteChoice):
    roads, rng = city.roads, random.Random(3)
    edge_s = city.edge_seconds(EtaModel(), HOUR)
    costs = city.routing_costs(choice, edge_s)
    door = city.streets.nearest(*rng.choice(city.streets.nodes))
    tree = roads.shortest_path_tree(door, costs)
    routes = DoorRoutes(roads, door, roads.costs(costs), edge_s, math.inf)
    for node in rng.sample(range(len(roads.node_of)), 300):
        rest = routes.rest_from(node)
        if rest is None:
            assert math.isinf(tree.remaining_s[node])
            continue
        expected = list(tree.route_from_node(node))
        seconds = sum(roads.cost_s(one, edge_s) for one in expected)
        assert rest == pytest.approx((seconds, sum(one.length_m for one in expected)))
        route = routes.route_from(node)
        assert sum(one.length_m for one in route) == pytest.approx(rest.metres)
        assert int(roads.from_node[route[0].edge]) == node


def test_door_routes__of_a_reach__cover_what_costs_less(city: City):
    roads = city.roads
    edge_s = city.edge_seconds(EtaModel(), HOUR)
    door = city.streets.nearest(0.0, 0.0)
    cost_s = roads.shortest_path_tree(door, edge_s).remaining_s
    routes = DoorRoutes(roads, door, roads.costs(edge_s), edge_s, 300.0)
    near, far = np.flatnonzero(cost_s <= 300.0), np.flatnonzero(cost_s > 300.0)
    assert len(near) > 100
    assert routes.covers(near.tolist())
    assert not any(routes.covers([node]) for node in far.tolist())
    assert routes.rest_from(int(far[0])) is None
    assert routes.route_from(int(far[0])) == []
    assert math.isinf(routes.seconds_from(int(far[0])))
