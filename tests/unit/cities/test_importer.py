"""The importer of cities, on a small hand-written extract read by pyosmium."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import shapely

from data.cities import Bounds, read_city
from eta.streets import BannedTurn, RoadGraph, Street, Streets, read_streets
from ops.cities.addresses import addresses
from ops.cities.build import build_city
from ops.cities.coastline import sea_within
from ops.cities.errors import CityError
from ops.cities.extract import bounds_of, read_extract
from ops.cities.places import food_places
from ops.cities.street_graph import build_graph
from ops.cities.tags import direction_of, is_street, maxspeed_kmh, restriction_of, speed_kmh
from ops.cities.turns import find_turns, usable_turns
from tests.osm_grid import write_osm
from tracking_api.places.index import load_places

UTC = ZoneInfo("UTC")


def directed(tmp_path: Path, **options: object) -> set[tuple[int, int]]:
    """The graph's edges between OSM nodes, in the directions of travel."""
    extract = read_extract(write_osm(tmp_path / "a.osm", **options))  # type: ignore[arg-type]
    graph = build_graph(extract.streets, bounds_of(extract))
    pairs = {(edge.u, edge.v) for edge in graph.edges}
    return pairs | {(edge.v, edge.u) for edge in graph.edges if not edge.one_way}


def test_streets__a_two_way_grid__has_each_edge_in_both_directions(tmp_path: Path) -> None:
    assert len(directed(tmp_path)) == 24


@pytest.mark.parametrize(
    ("tags", "present", "missing"),
    [
        ({"oneway": "yes"}, (4, 5), (5, 4)),
        ({"oneway": "-1"}, (5, 4), (4, 5)),
        ({"junction": "roundabout"}, (4, 5), (5, 4)),
    ],
)
def test_streets__a_one_way__leads_one_way_only(
    tmp_path: Path, tags: dict[str, str], present: tuple[int, int], missing: tuple[int, int]
) -> None:
    edges = directed(tmp_path, tags={"w2": tags})
    assert present in edges
    assert missing not in edges


@pytest.mark.parametrize(
    ("tags", "is_kept"),
    [
        ({"access": "private"}, False),
        ({"motor_vehicle": "no"}, False),
        ({"motor_vehicle": "no", "bicycle": "yes"}, True),
        ({"access": "no", "motor_vehicle": "destination"}, True),
        ({"highway": "footway"}, False),
    ],
)
def test_streets__access__decides_whether_couriers_may_use_it(
    tmp_path: Path, tags: dict[str, str], is_kept: bool
) -> None:
    assert ((4, 5) in directed(tmp_path, tags={"w2": tags})) is is_kept


def test_streets__outside_the_bounds__are_cut_off(tmp_path: Path) -> None:
    extract = read_extract(write_osm(tmp_path / "a.osm"))
    graph = build_graph(extract.streets, Bounds(9.9995, 49.9995, 10.0015, 50.0015))
    assert set(graph.places) == {1, 2, 4, 5}


def test_streets__that_no_one_can_leave__are_dropped(tmp_path: Path) -> None:
    dead_end = {"w3": {"oneway": "yes"}, "w6": {"oneway": "yes"}}  # both lead to n9
    assert not any(9 in edge for edge in directed(tmp_path, tags=dead_end))


def test_streets__speed__is_of_the_class_and_at_most_the_limit() -> None:
    assert speed_kmh({"highway": "primary"}) == 45
    assert speed_kmh({"highway": "primary", "maxspeed": "30"}) == 30
    assert speed_kmh({"highway": "residential", "maxspeed": "50"}) == 28
    assert maxspeed_kmh("20 mph") == pytest.approx(32.19, abs=0.01)
    assert maxspeed_kmh("none") is None


def test_tags__odd_values__mean_the_usual() -> None:
    assert direction_of({"oneway": "alternating"}) == 0
    assert not is_street({"highway": "residential", "area": "yes"})
    assert restriction_of({"type": "restriction", "restriction": "no_left_turn"}) == "no"
    exempt = {"type": "restriction", "restriction": "no_left_turn", "except": "psv;bicycle"}
    assert restriction_of(exempt) is None


@pytest.mark.parametrize(
    ("kind", "banned"),
    [("no_left_turn", {(4, 5, 8)}), ("only_straight_on", {(4, 5, 2), (4, 5, 6), (4, 5, 4)})],
)
def test_turns__a_restriction__bans_pairs_of_edges_at_its_node(
    tmp_path: Path, kind: str, banned: set[tuple[int, int, int]]
) -> None:
    # From 4 eastwards into 5. Columns end at 5, so that the restriction names one half.
    path = write_osm(tmp_path / "a.osm", restriction=(kind, 2, 5, 5))
    extract = read_extract(path)
    graph = build_graph(extract.streets, bounds_of(extract))
    turns = find_turns(graph, extract.restrictions)

    def other(edge: int, node: int) -> int:
        return graph.edges[edge].u if graph.edges[edge].v == node else graph.edges[edge].v

    named = {(other(start, via), via, other(end, via)) for start, via, end in turns}
    if kind.startswith("no"):
        assert banned <= named
        assert all(via == 5 and end in (2, 8) for _, via, end in named)
    else:
        assert {(4, 5, 6), (4, 5, 4)} <= named
        assert all(end in (4, 6) for _, _, end in named)


def streets_of(places: list[tuple[float, float]], pairs: list[tuple[int, int]]) -> Streets:
    """One-way streets between places on the plane."""
    streets = []
    for u, v in pairs:
        length = float(np.hypot(places[v][0] - places[u][0], places[v][1] - places[u][1]))
        ends = (places[u], places[v])
        streets.append(Street(u, v, True, 10.0, "residential", ends, (0.0, length)))
    return Streets((10.0, 50.0), streets, places, UTC)


def test_turns__a_ban_that_would_cut_a_street_off__is_dropped() -> None:
    triangle = streets_of([(0.0, 0.0), (100.0, 0.0), (100.0, 100.0)], [(0, 1), (1, 2), (2, 0)])
    assert usable_turns(triangle, [BannedTurn(0, 1, 1)]) == []


def test_routes__a_banned_turn_with_a_way_around__take_it() -> None:
    places = [(0.0, 0.0), (100.0, 0.0), (100.0, 100.0), (200.0, 0.0), (150.0, -90.0)]
    free = streets_of(places, [(0, 1), (1, 2), (1, 3), (3, 4), (4, 1), (2, 0)])
    banned = [BannedTurn(0, 1, 1)]
    assert usable_turns(free, banned) == banned
    limited = Streets(free.middle, free.streets, free.nodes, UTC, banned)
    roads = RoadGraph(limited)
    start, goal = limited.nearest(50.0, 0.0), limited.nearest(100.0, 50.0)
    tree = roads.shortest_path_tree(goal, roads.length_m)
    route = [int(roads.street_of[part.edge]) for part in tree.route_from(start)]
    assert route == [0, 2, 3, 4, 1]
    assert tree.seconds_from(start) == pytest.approx(50 + 100 + 2 * np.hypot(50, 90) + 50, abs=5)


def test_coastline__land_on_its_left__the_rest_of_the_box_is_sea() -> None:
    box = shapely.box(0, 0, 10, 10)
    sea = sea_within(box, [[(-1.0, 4.0), (11.0, 4.0)]])
    assert sea is not None
    assert sea.area == pytest.approx(40.0)
    assert sea.contains(shapely.Point(5, 1))


def test_coastline__an_island_and_a_loose_end__are_land_and_continued() -> None:
    box = shapely.box(0, 0, 10, 10)
    island = [(4.0, 1.0), (6.0, 1.0), (6.0, 3.0), (4.0, 3.0), (4.0, 1.0)]  # anticlockwise: land
    sea = sea_within(box, [[(-1.0, 5.0), (9.5, 5.0)], island])
    assert sea is not None
    assert sea.area == pytest.approx(50.0 - 4.0)
    assert sea_within(box, []) is None


def test_restaurants__of_a_later_extract__keep_their_ids(tmp_path: Path) -> None:
    extract = read_extract(write_osm(tmp_path / "a.osm"))
    (place,) = food_places(extract, bounds_of(extract))
    assert (place.name, place.kind) == ("Kappeli", "restaurant")
    assert 1_000_000_000 <= place.poi_id < 2_000_000_000
    assert [place] == food_places(read_extract(tmp_path / "a.osm"), bounds_of(extract))


def test_addresses__of_the_extract__are_found_with_each_of_their_numbers(tmp_path: Path) -> None:
    extract = read_extract(write_osm(tmp_path / "a.osm"))
    places = addresses(extract, bounds_of(extract))
    assert set(places) == {("Esplanadi", "1"), ("Esplanadi", "3 a")}
    assert addresses(extract, Bounds(0.0, 0.0, 1.0, 1.0)) == {}


def test_places__of_an_added_city__have_house_numbers(tmp_path: Path) -> None:
    index = load_places(read_city(build(tmp_path, 10.0)))
    assert index.find("esplanadi 3a", 5)[0].precision == "address"


def build(tmp_path: Path, west: float, bounds: Bounds | None = None) -> Path:
    path = write_osm(tmp_path / "a.osm", west=west, restriction=("no_left_turn", 2, 5, 5))
    return build_city("testville", path, bounds, tmp_path / "cities", lambda _: None).path


def test_city__of_the_extract__has_a_graph_a_map_restaurants_and_its_time_zone(
    tmp_path: Path,
) -> None:
    folder = build(tmp_path, 10.0)
    assert {path.name for path in folder.iterdir()} >= {
        "city.json", "map.pmtiles", "restaurants.csv", "road_nodes.csv.gz", "road_edges.csv.gz",
        "road_turns.csv.gz", "building_points.csv.gz", "addresses.csv.gz",
    }  # fmt: skip
    assert (folder / "map.pmtiles").read_bytes()[:7] == b"PMTiles"
    assert '"time_zone": "Europe/Berlin"' in (folder / "city.json").read_text()
    with gzip.open(folder / "road_turns.csv.gz", "rt") as file:
        assert len(list(csv.DictReader(file))) >= 1


def test_city__across_180_degrees__is_one_graph_around_its_middle(tmp_path: Path) -> None:
    folder = build(tmp_path, 179.999)
    streets = read_streets(folder / "road_nodes.csv.gz", folder / "road_edges.csv.gz", UTC)
    assert len(streets.nodes) == 9
    assert max(abs(x) for x, _ in streets.nodes) < 200
    lon, lat = streets.to_lon_lat(streets.to_xy(-179.9995, 50.001)[0], 0.0)
    assert (round(lon, 4), round(lat, 3)) == (-179.9995, 50.001)
    assert '"west": 179.999' in (folder / "city.json").read_text()


@pytest.mark.parametrize(
    ("name", "content", "bounds", "next_step"),
    [
        ("missing.osm.pbf", None, None, "give --osm the path"),
        ("notes.txt", b"x", None, "--osm takes a file like"),
        ("damaged.osm.pbf", b"not a pbf at all", None, "download it again"),
        ("empty.osm", b'<osm version="0.6"></osm>', None, "check that it is of a city"),
        ("grid.osm", b"grid", Bounds(1.0, 2.0, 3.0, 4.0), "check --bounds"),
    ],
)
def test_city__a_bad_file__is_refused_with_the_next_step_and_leaves_nothing(
    tmp_path: Path, name: str, content: bytes | None, bounds: Bounds | None, next_step: str
) -> None:
    path = tmp_path / name
    if content == b"grid":
        write_osm(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(CityError, match=next_step):
        build_city("testville", path, bounds, tmp_path / "cities", lambda _: None)
    assert list((tmp_path / "cities").iterdir()) == []
