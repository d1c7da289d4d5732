"""What the fleet's page asks, on a real database: needs, search, tiles, the past and its files."""

from __future__ import annotations

import csv
import io
import json
import math
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from data import BUNDLED_CITY
from doorstep.store.admin import NewCity, NewRestaurant, register_city
from tests.database import Database
from tests.integration.http_services import (
    RESTAURANT,
    STAFF,
    as_customer,
    as_driver,
    create_order,
    north_of,
    on_duty_at,
    problem_of,
    report,
)
from tests.vector_tile import read_tile
from tracking_api.history import routes as history_routes

HOUR = timedelta(hours=1)


@pytest.fixture
async def api(tracking_api: httpx.AsyncClient) -> httpx.AsyncClient:
    tracking_api.headers.update(STAFF)
    return tracking_api


async def get(api: httpx.AsyncClient, path: str, **params: Any) -> Any:
    answer = await api.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def last_hour() -> dict[str, str]:
    now = datetime.now(UTC)
    return {"from": (now - HOUR).isoformat(), "to": (now + HOUR).isoformat()}


# Orders in the order of their need


async def test_fleet_orders__open_ones__are_sorted_by_their_promise(driver_api, api, database):
    for n in (1, 2, 3):
        await on_duty_at(driver_api, f"d{n}", north_of(RESTAURANT, n))
    well, slow, lost = [await create_order(api, "confirm", "assign") for _ in range(3)]
    young, old = await create_order(api, "confirm"), await create_order(api)
    minutes_ago = (
        "UPDATE orders SET state_at = now() - %s * interval '1 minute' WHERE order_id = %s"
    )
    database.rows(minutes_ago, 21, slow["order_id"])
    database.rows(minutes_ago, 5, lost["order_id"])
    database.rows(
        "UPDATE driver_state SET received_at = now() - interval '6 minutes' WHERE driver_id = %s",
        lost["driver_id"],
    )
    database.rows(
        "UPDATE orders SET created_at = now() - interval '1 hour' WHERE order_id = %s",
        old["order_id"],
    )
    await create_order(api, "cancel")
    promised_to = (
        (datetime.now(UTC) - HOUR).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
    details = {"promised_to": promised_to, "external_id": "shop-1"}
    soon = await create_order(api, **details)
    body = await get(api, "/fleet/orders")
    assert [(one["order_id"], one["group"], one["stuck"]) for one in body["orders"]] == [
        (soon["order_id"], "waiting", None),
        (old["order_id"], "waiting", None),
        (well["order_id"], "under_way", None),
        (slow["order_id"], "stuck", "no_progress"),
        (lost["order_id"], "stuck", "courier_lost"),
        (young["order_id"], "waiting", None),
    ]
    assert body["orders"][0]["due_at"] == body["orders"][0]["promised_to"] == promised_to
    assert body["orders"][0]["external_id"] == "shop-1"
    assert body["counts"] == {"waiting": 3, "stuck": 2, "under_way": 1}
    assert body["allowed"]["assigned"] == ["reassign", "pick_up", "cancel"]
    few = await get(api, "/fleet/orders", limit=1)
    assert [one["order_id"] for one in few["orders"]] == [soon["order_id"]]
    assert few["counts"] == body["counts"]


# Search


async def test_search__part_of_an_id_or_name_or_order_prefix__is_found(driver_api, api):
    await on_duty_at(driver_api, "d2", RESTAURANT)
    order = await create_order(api, "confirm", "assign")
    by_name = await get(api, "/fleet/search", q="driver 2")
    assert [(one["driver_id"], one["name"], one["duty"]) for one in by_name["drivers"]] == [
        ("d2", "Driver 2", "on_duty")
    ]
    assert len((await get(api, "/fleet/search", q="D"))["drivers"]) == 3
    by_order = await get(api, "/fleet/search", q=order["order_id"][:10].upper())
    assert [(one["order_id"], one["state"], one["driver_id"]) for one in by_order["orders"]] == [
        (order["order_id"], "assigned", "d2")
    ]


async def test_search__words_of_an_orders_details__find_it_also_after_its_end(api):
    order = await create_order(api, "cancel", external_id="shop-7", address="Via dei Servi 12")
    for text in ("servi", "shop-7"):
        [found] = (await get(api, "/fleet/search", q=text))["orders"]
        assert (found["order_id"], found["state"]) == (order["order_id"], "cancelled")
        assert (found["external_id"], found["address"]) == ("shop-7", "Via dei Servi 12")


# Deciding


async def test_staff_commands__for_the_courier__pick_up_and_deliver_and_are_in_the_timeline(
    driver_api, api
):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    order = await create_order(api, "confirm", "assign")
    for command, state in (("pick_up", "picked_up"), ("deliver", "delivered")):
        answer = await api.post(f"/orders/{order['order_id']}/{command}")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    timeline = await get(api, f"/orders/{order['order_id']}/timeline")
    assert [(one["what"], one["actor"]) for one in timeline["entries"]] == [
        (command, "staff") for command in ("create", "confirm", "assign", "pick_up", "deliver")
    ]
    refused = await api.post(f"/orders/{order['order_id']}/deliver")
    assert problem_of(refused, 409, "illegal-transition")["current_state"] == "delivered"


async def test_allowed__each_command_of_staff__has_a_route(api):
    allowed = (await get(api, "/fleet/orders"))["allowed"]
    order = await create_order(api, "cancel")
    for command in {one for commands in allowed.values() for one in commands}:
        answer = await api.post(f"/orders/{order['order_id']}/{command}")
        assert answer.status_code == 409, command


async def test_couriers__of_an_order__are_ranked_and_one_is_assigned(driver_api, api):
    for n, north_m in ((1, 900), (2, 100)):
        await on_duty_at(driver_api, f"d{n}", north_of(RESTAURANT, north_m))
    order = await create_order(api, "confirm")
    couriers = (await get(api, f"/orders/{order['order_id']}/couriers", limit=5))["couriers"]
    assert [(one["driver_id"], one["open_orders"]) for one in couriers] == [("d2", 0), ("d1", 0)]
    assert 0 < couriers[0]["pickup_s"] < couriers[1]["pickup_s"]
    chosen = {"driver_id": couriers[1]["driver_id"]}
    assigned = await api.post(f"/orders/{order['order_id']}/assign", json=chosen)
    assert assigned.json()["driver_id"] == "d1"


async def test_places__restaurants_of_the_city_and_streets__are_found(api):
    found = (await get(api, "/places", q="mario"))["places"]
    assert [(one["kind"], one["restaurant_id"]) for one in found[:1]] == [("restaurant", 1)]
    streets = (await get(api, "/places", q="via dei servi 4"))["places"]
    assert [(one["kind"], one["name"]) for one in streets] == [("street", "Via dei Servi 4")]


async def test_states__of_the_past__start_with_the_last_before_the_range(driver_api, api):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    await create_order(api, "confirm", "assign")
    body = await get(api, "/fleet/states", driver_id=["d1", "d2"], **last_hour())
    told = [(driver_id, state) for driver_id, _, state in body["states"]]
    assert told == [("d1", "available"), ("d1", "to_restaurant")]


@pytest.mark.parametrize("text", ["%", "_", "' OR 1=1 --", "\\", "zz"])
async def test_search__sql_wildcards__are_only_text(api, text):
    assert await get(api, "/fleet/search", q=text) == {"drivers": [], "orders": []}


# Tiles


def tile_at(place: tuple[float, float], z: int) -> tuple[int, int]:
    lon_deg, lat_deg = place
    y = 0.5 - math.asinh(math.tan(math.radians(lat_deg))) / (2 * math.pi)
    return int((lon_deg + 180) / 360 * 2**z), int(y * 2**z)


async def tile_of(
    api: httpx.AsyncClient, place: tuple[float, float], z: int, **filters: Any
) -> Any:
    x, y = tile_at(place, z)
    answer = await api.get(f"/fleet/tiles/{z}/{x}/{y}.mvt", params=filters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/vnd.mapbox-vector-tile"
    return read_tile(answer.content).get("drivers", [])


async def test_tiles__few_drivers__are_points_with_state_and_duty(driver_api, api):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    await report(driver_api, "d2", north_of(RESTAURANT, 100))
    for z in (3, 14):  # with and without cells
        found = await tile_of(api, RESTAURANT, z)
        assert {one["driver_id"]: one["state"] for _, one in found} == {
            "d1": "available",
            "d2": "off_duty",
        }
        assert {one["count"] for _, one in found} == {1}
    x, y = tile_at(RESTAURANT, 14)
    [px, py] = next(place for place, one in found if one["driver_id"] == "d1")
    assert (x + px / 4096) / 2**14 * 360 - 180 == pytest.approx(RESTAURANT[0], abs=1e-5)
    n = math.pi * (1 - 2 * (y + py / 4096) / 2**14)
    assert math.degrees(math.atan(math.sinh(n))) == pytest.approx(RESTAURANT[1], abs=1e-5)
    assert await tile_of(api, (2.35, 48.85), 14) == []
    on_duty = await tile_of(api, RESTAURANT, 14, duty="on_duty", presence=["online", "stationary"])
    assert [one["driver_id"] for _, one in on_duty] == ["d1"]
    assert await tile_of(api, RESTAURANT, 14, state="to_customer") == []


# Below zoom 9 all drivers are looked at; from there on those of the tile's cells, unless these are
# more than 20,000.
@pytest.mark.parametrize(("drivers", "z"), [(1500, 8), (1500, 12), (20_001, 12)])
async def test_tiles__too_many_drivers__are_cells_that_count_each_once(api, database, drivers, z):
    database.rows(
        "INSERT INTO driver SELECT 'x' || n, 'x' FROM generate_series(1, %s::int) n", drivers
    )
    database.rows(
        "INSERT INTO driver_state (driver_id, fix_at, received_at, lon_deg, lat_deg, cell)"
        " SELECT 'x' || n, now(), now(), 11.27 + n * 1e-6, 43.77, cell_of(11.27 + n * 1e-6, 43.77)"
        " FROM generate_series(1, %s::int) n",
        drivers,
    )
    database.rows(
        "INSERT INTO driver_cell SELECT driver_id, cell FROM driver_state WHERE cell IS NOT NULL"
    )
    found = await tile_of(api, (11.28, 43.77), z)
    assert sum(one["count"] for _, one in found) == drivers
    assert len(found) <= 16
    assert all("driver_id" in one for _, one in found if one["count"] == 1)


async def test_tiles__presence__equals_presence_of(driver_api, api, database):
    await report(driver_api, "d1", RESTAURANT)
    for quiet_s, speed_mps in [(0, None), (0, 0.1), (0, 4), (100, 4), (400, 0), (50, 0.49)]:
        database.rows(
            "UPDATE driver_state SET speed_mps = %s, received_at = now() - %s * interval '1 s'"
            " WHERE driver_id = 'd1'",
            speed_mps,
            quiet_s,
        )
        one = await get(api, "/drivers/d1")
        tile = database.value("SELECT fleet_tile_v1(0, 0, 0, NULL, NULL, NULL, 60, 300, 0.5, 1000)")
        [(_, drawn)] = read_tile(bytes(tile))["drivers"]
        assert drawn["presence"] == one["presence"]


# The past


async def test_history__in_pages__has_each_fix_once_in_order(driver_api, api):
    for n in range(7):
        await report(driver_api, "d1", north_of(RESTAURANT, 10 * n), ago_s=600 - 10 * n)
    address, seen = f"/drivers/d1/history?{httpx.QueryParams(last_hour() | {'limit': '3'})}", []
    pages = 0
    while address:
        answer = await api.get(address)
        body = answer.json()
        seen += [row[body["columns"].index("lat_deg")] for row in body["fixes"]]
        address = answer.links.get("next", {}).get("url", "")
        pages += 1
    assert pages == 3
    assert seen == [north_of(RESTAURANT, 10 * n)[1] for n in range(7)]


async def test_history__as_files__have_the_same_fixes(driver_api, api, monkeypatch):
    monkeypatch.setattr(history_routes, "MAX_POINTS", 2)  # so that a file takes several pages
    for n in range(5):
        await report(driver_api, "d1", north_of(RESTAURANT, 10 * n), ago_s=600 - 10 * n)
    await report(driver_api, "d1", north_of(RESTAURANT, 50_000), ago_s=540)  # a jump
    lats = [north_of(RESTAURANT, 10 * n)[1] for n in range(5)]
    files = {}
    for kind in ("csv", "geojson", "gpx"):
        answer = await api.get(f"/drivers/d1/history.{kind}", params=last_hour())
        assert answer.status_code == 200
        assert f'.{kind}"' in answer.headers["content-disposition"]
        files[kind] = answer.text
    rows = list(csv.DictReader(io.StringIO(files["csv"])))
    assert [float(row["lat_deg"]) for row in rows if row["jump"] == "false"] == lats
    assert [row["jump"] for row in rows].count("true") == 1
    features = json.loads(files["geojson"])["features"]
    assert [one["properties"]["jump"] for one in features] == [
        row["jump"] == "true" for row in rows
    ]
    name = {"g": "http://www.topografix.com/GPX/1/1"}
    points = ET.fromstring(files["gpx"]).findall(".//g:trkpt", name)
    assert [float(point.attrib["lat"]) for point in points] == lats


async def test_history__no_fixes__is_an_empty_file(api):
    texts = {
        kind: (await api.get(f"/drivers/d1/history.{kind}", params=last_hour())).text
        for kind in ("csv", "geojson", "gpx")
    }
    assert len(texts["csv"].splitlines()) == 1
    assert json.loads(texts["geojson"])["features"] == []
    ET.fromstring(texts["gpx"])


async def test_fleet_history__viewport__has_at_most_one_place_per_step(driver_api, api):
    for n in range(30):
        await report(driver_api, "d1", north_of(RESTAURANT, n), ago_s=100 - n)
    await report(driver_api, "d2", (12.5, 41.9), ago_s=60)
    now = datetime.now(UTC)
    body = await get(
        api,
        "/fleet/history",
        bbox="11,43,12,44",
        **{"from": (now - 4 * HOUR).isoformat(), "to": now.isoformat()},
    )
    assert (body["driver_ids"], body["more"], body["step_s"]) == (["d1"], False, 60.0)
    assert 1 <= len(body["fixes"]) <= 2  # thirty seconds of a minute's steps
    assert body["fixes"][0][0] == 0


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
        {"from": "2026-01-01T00:00:00Z", "to": "2026-02-02T00:00:00Z"},
        {"from": "2026-01-01T00:00:00", "to": "2026-01-01T01:00:00"},
        {"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T23:59:59Z"},
    ],
)
async def test_history__invalid_range__is_422(api, query):
    for path in ("/drivers/d1/history", "/drivers/d1/history.csv", "/fleet/history"):
        problem_of(await api.get(path, params=query), 422, "unusable-request")


@pytest.mark.parametrize(
    ("from_at", "to_at"),
    [
        ("0002-01-01T00:00:00Z", "0002-01-01T01:00:00Z"),
        ("9998-12-29T22:00:00-23:00", "9998-12-29T23:00:00-23:00"),
    ],
)
async def test_history__greatest_range__is_answered(api, from_at, to_at):
    for path in ("/drivers/d1/history", "/drivers/d1/history.gpx", "/fleet/history"):
        answer = await api.get(path, params={"from": from_at, "to": to_at})
        assert answer.status_code in (200, 422), answer.text


async def test_fleet_routes__other_roles_and_unknown_drivers__are_refused(driver_api, api):
    order = await create_order(api)
    for path in (
        "/fleet/orders",
        "/fleet/search?q=d",
        "/fleet/tiles/0/0/0.mvt",
        f"/fleet/history?{httpx.QueryParams(last_hour())}",
        f"/drivers/d1/history?{httpx.QueryParams(last_hour())}",
        f"/drivers/d1/history.csv?{httpx.QueryParams(last_hour())}",
    ):
        for headers in (as_customer(order), as_driver("d1")):
            problem_of(await api.get(path, headers=headers), 403, "forbidden")
        problem_of(await api.get(path, headers={"Authorization": ""}), 401, "unauthenticated")
    for path in ("/drivers/unknown-driver/history", "/drivers/unknown-driver/history.gpx"):
        problem_of(await api.get(path, params=last_hour()), 404, "unknown-driver")
    problem_of(await api.get("/fleet/tiles/1/2/0.mvt"), 422, "unusable-request")


async def test_cities__of_a_database__are_public_and_an_order_belongs_to_its_restaurant_s(
    database: Database, api: httpx.AsyncClient
) -> None:
    with database.connect() as conn:
        fiji = (178.3, -18.3, -179.9, -18.0, "Pacific/Fiji", datetime(2026, 1, 1, tzinfo=UTC))
        assert register_city(
            conn, NewCity("suva", *fiji, [NewRestaurant(1_000_000_001, "Suva", 178.44, -18.14)])
        )
    answer = await api.get("/cities", headers={"Authorization": ""})
    cities = {one["name"]: one for one in answer.json()["cities"]}
    assert cities["suva"]["time_zone"] == "Pacific/Fiji"
    assert cities["suva"]["bounds"] == [178.3, -18.3, -179.9, -18.0]
    assert cities[BUNDLED_CITY]["map_url"] == f"/tiles/{BUNDLED_CITY}.pmtiles"
    restaurants = (await api.get("/restaurants")).json()["restaurants"]
    assert {one["restaurant_id"]: one["city"] for one in restaurants} == {
        1: BUNDLED_CITY,
        1_000_000_001: "suva",
    }
    for restaurant_id, city in ((1, BUNDLED_CITY), (1_000_000_001, "suva")):
        order = {
            "restaurant_id": restaurant_id,
            "destination": {"lon_deg": 178.45, "lat_deg": -18.14},
        }
        made = (await api.post("/orders", json=order)).json()
        for headers in (STAFF, as_customer(made)):
            track = await api.get(f"/track/{made['order_id']}", headers=headers)
            assert track.json()["city"] == city
