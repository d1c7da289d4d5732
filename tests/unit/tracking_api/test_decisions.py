"""What dispatchers decide by: ranked couriers and the search for places."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from data import BUNDLED_CITY
from data.cities import bundled_city
from doorstep.geo import distance_m, offset
from tests.unit.tracking_api.memory_store import NOON, ORDER_ID, OTHER_ID, STAFF, MemoryStore
from tracking_api.app import build_app
from tracking_api.places.index import PlaceIndex, Street, load_places, words_of
from tracking_api.stores import Stores
from tracking_api.track.road_eta import RoadEta, load_estimator

PICKUP = (11.25, 43.77)
COURIERS = f"/orders/{ORDER_ID}/couriers"


@pytest.fixture
async def http(store: MemoryStore) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(Stores.backed_by(store), "https://track.test")
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test", headers=STAFF
        ) as client,
    ):
        yield client


async def test_couriers__of_an_order__are_ranked_by_minutes_then_open_orders_the_current_last(
    http: httpx.AsyncClient, store: MemoryStore
) -> None:
    def at(north_m: float) -> tuple[float, float]:
        return offset(PICKUP, 0, north_m)

    store.returning = {"back"}
    store.couriers = [
        ("current", 1, True, at(10)),
        ("busy", 2, False, at(50)),
        ("back", 0, False, at(55)),
        ("far", 0, False, at(3000)),
        ("near", 0, False, at(60)),
    ]
    couriers = (await http.get(COURIERS)).json()["couriers"]
    ranked = [(one["driver_id"], one["is_returning"]) for one in couriers]
    assert [one for one, _ in ranked] == ["near", "back", "busy", "far", "current"]
    assert [one for one, is_returning in ranked if is_returning] == ["back"]
    near = couriers[0]
    assert (near["pickup_s"], near["distance_m"], near["route"]) == (20, 90, "straight_line")
    assert (near["battery"], near["presence"], near["age_s"]) == (0.5, "online", 0)


@pytest.mark.parametrize("path", ["couriers", "timeline"])
async def test_decision__on_an_unknown_order__is_not_found(
    http: httpx.AsyncClient, path: str
) -> None:
    assert (await http.get(f"/orders/{OTHER_ID}/{path}")).status_code == 404


def test_ride__with_the_citys_streets__is_longer_than_the_straight_line() -> None:
    start, goal = (11.2430, 43.7760), (11.2600, 43.7680)
    eta = RoadEta({BUNDLED_CITY: load_estimator(bundled_city())})
    found = eta.ride(BUNDLED_CITY, start, goal, NOON)
    assert found is not None
    seconds, metres = found
    straight_m = distance_m(start, goal)
    assert straight_m < metres < 4 * straight_m
    assert 1 < metres / seconds < 15
    assert eta.ride("elsewhere", start, goal, NOON) is None


# Places


@pytest.fixture(scope="module")
def florence() -> PlaceIndex:
    return load_places(bundled_city())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("via roma", "Via Roma"),
        ("ROMA VIA", "Via Roma"),
        ("serv", "Via dei Servi"),
        ("via dei servi, 12/a", "Via dei Servi 12/a"),
        ("12 via dei servi", "Via dei Servi 12"),
        ("piazza santa maria nov", "Piazza Santa Maria Novella"),
    ],
)
def test_index__beginnings_of_words__find_the_street(
    florence: PlaceIndex, text: str, name: str
) -> None:
    best = florence.find(text, 5)[0]
    assert (best.name, best.precision) == (name, "street")


@pytest.mark.parametrize("text", ["", " ", "!", "12", "xyzzy", "via roma xyzzy"])
def test_index__nothing_alike__is_empty(florence: PlaceIndex, text: str) -> None:
    assert florence.find(text, 5) == []


def test_index__house_number__is_found_exactly_and_else_its_street() -> None:
    street = Street("Rue de Nîmes", (2.0, 48.0), {"12b": (2.1, 48.1)})
    index = PlaceIndex([(words_of(street.name), street)])
    exact, street_only = index.find("12 B rue de nimes", 5), index.find("rue de nimes 13", 5)
    assert index.find("Rue de Nîmes 12B", 5)[0] == ("Rue de Nîmes 12B", (2.1, 48.1), "address")
    assert exact == []  # a number in two words
    assert street_only == [("Rue de Nîmes 13", (2.0, 48.0), "street")]


def test_load__city_with_house_numbers__has_them_also_of_streets_without_a_road(
    tmp_path: Path,
) -> None:
    city = bundled_city()
    for file in (city.road_nodes, city.road_edges):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    rows = "lon,lat,street,housenumber\n11.25,43.77,Via Roma,7\n11.26,43.78,Borgo Nuovo,1 A\n"
    (tmp_path / city.addresses.name).write_bytes(gzip.compress(rows.encode()))
    object.__setattr__(city, "path", tmp_path)
    index = load_places(city)
    assert index.find("via roma 7", 1) == [("Via Roma 7", (11.25, 43.77), "address")]
    assert index.find("borgo nuovo 1a", 1) == [("Borgo Nuovo 1a", (11.26, 43.78), "address")]


async def test_places__by_text_and_by_coordinates__name_their_precision(
    http: httpx.AsyncClient,
) -> None:
    found = (await http.get("/places", params={"q": "via roma"})).json()
    assert (found["city"], found["has_house_numbers"]) == (BUNDLED_CITY, False)
    assert found["places"][0] == {
        "kind": "restaurant",
        "name": "Da Mario",
        "detail": None,
        "restaurant_id": 1,
        "place": {"lon_deg": 11.25, "lat_deg": 43.77},
    }
    assert [one["kind"] for one in found["places"][1:3]] == ["street", "street"]
    [place] = (await http.get("/places", params={"q": "43.5, 11.25"})).json()["places"]
    assert (place["kind"], place["place"]) == ("coordinates", {"lon_deg": 11.25, "lat_deg": 43.5})
    elsewhere = await http.get("/places", params={"q": "via roma", "city": "nowhere"})
    assert [one["kind"] for one in elsewhere.json()["places"]] == ["restaurant"]
