"""tracking_api over a store in memory: the seam is `tracking_api.stores.Stores`."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import uuid4

import httpx
import pytest

from data import BUNDLED_CITY
from doorstep.credentials import token_sha256
from tests.unit.tracking_api.memory_store import (
    CUSTOMER,
    NEW_ORDER,
    ORDER_ID,
    STAFF,
)
from tracking_api.track.links import BURST_BAD_LINKS, REFUSE_AFTER_S


def problem_of(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    document: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, document["type"]) == (status, f"/problems/{slug}"), document
    return document


# Orders


async def test_create_order__by_staff__answers_with_the_customers_link(http, store):
    answer = await http.post("/orders", json=NEW_ORDER, headers=STAFF)
    assert answer.status_code == 201
    body = answer.json()
    assert answer.headers["location"] == f"/orders/{ORDER_ID}"
    token = body["customer_token"]
    assert token.startswith("cst_")
    assert body["customer_link"] == f"https://doorstep.test/t/{ORDER_ID}#{token}"
    assert store.tokens[token_sha256(token)].order_id == ORDER_ID


async def test_create_order__repeated_under_its_key__answers_without_a_token(http, store):
    headers = STAFF | {"Idempotency-Key": "k"}
    first, again = [
        (await http.post("/orders", json=NEW_ORDER, headers=headers)).json() for _ in range(2)
    ]
    assert first["order_id"] == again["order_id"]
    assert (again["customer_token"], again["customer_link"]) == (None, None)
    assert token_sha256(first["customer_token"]) in store.tokens


async def test_get_track__by_staff__looks_the_token_up_once(http, store):
    answer = await http.get(f"/track/{ORDER_ID}", headers=STAFF)
    assert (answer.status_code, store.look_ups) == (200, 1)


@pytest.mark.parametrize("token", ["tok-customer", "tok-d1"])
async def test_create_order__not_by_staff__is_403(http, store, token):
    headers = {"Authorization": f"Bearer {token}"}
    problem_of(await http.post("/orders", json=NEW_ORDER, headers=headers), 403, "forbidden")
    assert store.created == []


async def test_create_order__no_token__is_401_before_the_body_is_parsed(http):
    problem_of(await http.post("/orders", content=b"{{{"), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"{", "not_json"),
        (b"null", "wrong_type"),
        (b"[]", "wrong_type"),
        (b"{}", "missing_field"),
        (b'{"restaurant_id": "1", "destination": {"lon_deg": 1, "lat_deg": 1}}', "wrong_type"),
        (b'{"restaurant_id": true, "destination": {"lon_deg": 1, "lat_deg": 1}}', "wrong_type"),
        (b'{"restaurant_id": 1, "destination": {"lon_deg": NaN, "lat_deg": 1}}', "not_finite"),
        (b'{"restaurant_id": 1, "destination": {"lon_deg": 1e999, "lat_deg": 1}}', "not_finite"),
        (b'{"restaurant_id": 1, "destination": {"lon_deg": 181, "lat_deg": 1}}', "out_of_range"),
        (b'{"restaurant_id": 1, "restaurant_id": 2}', "duplicate_key"),
        (b'{"restaurant_id": ' + b"9" * 5000 + b"}", "number_too_long"),
        (b"[" * 60_000, "too_deep"),
        (b'{"customer_name": "\xff"}', "not_utf8"),
        (b'{"customer_name": "\\u0000"}', "bad_text"),
        (b'{"customer_name": "\\ud800"}', "bad_text"),
        (b'{"unknown_field": 1, "restaurant_id": 1}', "missing_field"),
        (b'{"restaurant_id": 99999999999, "destination": {}}', "out_of_range"),
    ],
)
async def test_create_order__bad_body__is_422_with_a_reason(http, store, body, reason):
    headers = STAFF | {"Content-Type": "application/json"}
    answer = await http.post("/orders", content=body, headers=headers)
    document = problem_of(answer, 422, "unusable-request")
    assert document["reason"] == reason
    assert all(error["loc"] and error["msg"] for error in document["errors"])
    assert store.created == []


async def test_list_orders__more_than_a_page__links_lead_through_each_order_once(http, store):
    seen: list[str] = []
    address = "/orders?limit=2&state=created"
    while address:
        answer = await http.get(address, headers=STAFF)
        page = answer.json()["orders"]
        assert len(page) <= 2
        seen += [order["order_id"] for order in page]
        address = answer.links.get("next", {}).get("url", "")
    newest_first = [str(order.order_id) for order in reversed(store.orders)]
    assert seen == newest_first


async def test_list_orders__unknown_state__is_422(http):
    answer = await http.get("/orders?state=lost", headers=STAFF)
    problem_of(answer, 422, "unusable-request")


async def test_order_commands__by_staff__reach_the_store(http, store):
    for path in ("confirm", "cancel", "fail", "assign"):
        answer = await http.post(f"/orders/{ORDER_ID}/{path}", headers=STAFF)
        assert answer.status_code == 200
    answer = await http.post(f"/orders/{ORDER_ID}/assign", json={"driver_id": "d1"}, headers=STAFF)
    assert answer.status_code == 200
    assert [command[1:] for command in store.commands] == [
        ("confirm", "staff", None),
        ("cancel", "staff", None),
        ("fail", "staff", None),
        ("assign", "staff", None),
        ("assign", "staff", "d1"),
    ]


async def test_reassign__after_delivery__is_409_with_the_state(http):
    answer = await http.post(f"/orders/{ORDER_ID}/reassign", headers=STAFF)
    document = problem_of(answer, 409, "illegal-transition")
    assert (document["current_state"], document["allowed"]) == ("delivered", [])


async def test_cancel__by_its_customer__records_the_customer_and_shows_no_driver(http, store):
    answer = await http.post(f"/orders/{ORDER_ID}/cancel", headers=CUSTOMER)
    assert answer.status_code == 200
    assert set(answer.json()) == {"order_id", "state", "order_seq"}
    assert store.commands == [(ORDER_ID, "cancel", "customer", None)]


async def test_cancel__by_another_orders_customer__is_the_same_404_as_for_no_order(http, store):
    headers = {"Authorization": "Bearer tok-other"}
    there = await http.post(f"/orders/{ORDER_ID}/cancel", headers=headers)
    nowhere = await http.post(f"/orders/{uuid4()}/cancel", headers=headers)
    problem_of(there, 404, "bad-link")
    assert there.content == nowhere.content
    assert store.commands == []


# Links


async def test_get_track__good_link__shows_the_order_and_its_courier(http):
    answer = await http.get(f"/track/{ORDER_ID}", headers=CUSTOMER)
    assert answer.status_code == 200
    body = answer.json()
    assert body["state"] == "picked_up"
    assert body["position"]["geometry"] == {"type": "Point", "coordinates": [11.255, 43.775]}
    assert body["position"]["properties"]["age_s"] == 7
    assert body["position"]["properties"]["freshness"] == "live"
    assert body["eta"]["seconds"] > 0
    assert body["restaurant"]["name"] == "Da Mario"
    assert "driver_id" not in answer.text


async def test_get_track__any_bad_link__is_the_same_404(http, store):
    bad = [
        (ORDER_ID, None),
        (ORDER_ID, "forged"),
        (ORDER_ID, "tok-other"),
        (ORDER_ID, "tok-d1"),
        (uuid4(), "tok-customer"),
        (uuid4(), "forged"),
        (uuid4(), "tok-staff"),
        ("not-a-uuid", "tok-customer"),
        (f"{{{ORDER_ID}}}", "tok-customer"),
        ("%00", "tok-customer"),
    ]
    answers = []
    for order_id, token in bad:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answers += [
            await http.get(f"/track/{order_id}{path}", headers=headers) for path in ("", "/history")
        ]
    problem_of(answers[0], 404, "bad-link")
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(sorted(answer.headers.items())) for answer in answers}) == 1


async def test_get_track__bad_link__costs_one_look_up_and_is_answered_after_a_fixed_time(
    http, store
):
    for order_id, token in [(ORDER_ID, "forged"), (uuid4(), "forged"), ("x", "tok-other")]:
        store.look_ups = 0
        started = time.perf_counter()
        await http.get(f"/track/{order_id}", headers={"Authorization": f"Bearer {token}"})
        assert time.perf_counter() - started >= REFUSE_AFTER_S
        assert store.look_ups == 1


async def test_get_track__too_many_bad_links__is_429_and_good_links_still_work(http):
    async def guess(n: int) -> int:
        headers = {"Authorization": f"Bearer guess-{n}"}
        return (await http.get(f"/track/{ORDER_ID}", headers=headers)).status_code

    statuses = await asyncio.gather(*(guess(n) for n in range(BURST_BAD_LINKS + 20)))
    assert statuses.count(404) == pytest.approx(BURST_BAD_LINKS, abs=3)
    assert set(statuses) == {404, 429}
    answer = await http.get(f"/track/{ORDER_ID}", headers=CUSTOMER)
    assert answer.status_code == 200


async def test_open_session__valid_token__sets_an_http_only_cookie(http):
    answer = await http.post(f"/track/{ORDER_ID}/session", json={"token": "tok-customer"})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    for attribute in ("HttpOnly", "SameSite=strict", f"Path=/track/{ORDER_ID}", "Secure"):
        assert attribute in cookie
    assert (await http.get(f"/track/{ORDER_ID}")).status_code == 200


@pytest.mark.parametrize("token", ["forged", "tok-other", "tok-staff"])
async def test_open_session__any_other_token__is_the_same_404_without_a_cookie(http, token):
    answer = await http.post(f"/track/{ORDER_ID}/session", json={"token": token})
    problem_of(answer, 404, "bad-link")
    assert "set-cookie" not in answer.headers


async def test_links__replaced_or_revoked__are_bad_at_once(http):
    old = CUSTOMER
    body = (await http.post(f"/orders/{ORDER_ID}/link", headers=STAFF)).json()
    new = {"Authorization": f"Bearer {body['customer_token']}"}
    assert (await http.get(f"/track/{ORDER_ID}", headers=old)).status_code == 404
    assert (await http.get(f"/track/{ORDER_ID}", headers=new)).status_code == 200
    answer = await http.delete(f"/orders/{ORDER_ID}/link", headers=STAFF)
    assert answer.status_code == 204
    assert (await http.get(f"/track/{ORDER_ID}", headers=new)).status_code == 404


async def test_history__good_link__is_geojson(http):
    answer = await http.get(f"/track/{ORDER_ID}/history", headers=CUSTOMER)
    assert answer.headers["content-type"] == "application/geo+json"
    assert [feature["geometry"]["type"] for feature in answer.json()["features"]] == [
        "LineString",
        "Point",
        "Point",
    ]


async def test_history__from_without_a_zone__is_422(http):
    address = f"/track/{ORDER_ID}/history?from=2026-01-01T12:00:00"
    problem_of(await http.get(address, headers=CUSTOMER), 422, "unusable-request")


# The fleet


async def test_fleet__customers_and_drivers__are_refused(http):
    paths = [
        "/orders",
        f"/orders/{ORDER_ID}",
        "/drivers/positions",
        "/drivers/nearest?lon_deg=11&lat_deg=43",
        "/drivers/d1",
        "/restaurants",
        "/policies",
    ]
    for path in paths:
        problem_of(await http.get(path), 401, "unauthenticated")
        for token in ("tok-customer", "tok-d1"):
            headers = {"Authorization": f"Bearer {token}"}
            problem_of(await http.get(path, headers=headers), 403, "forbidden")


async def test_positions__by_staff__are_packed(http):
    body = (await http.get("/drivers/positions", headers=STAFF)).json()
    row = dict(zip(body["columns"], body["drivers"][0], strict=True))
    assert (row["driver_id"], row["state"], row["lon_deg"]) == ("d1", "available", 11.25)


async def test_nearest__by_staff__is_the_nearest_with_its_distance(http):
    answer = await http.get("/drivers/nearest?lon_deg=11&lat_deg=43", headers=STAFF)
    assert [near["distance_m"] for near in answer.json()["drivers"]] == [120.0]


@pytest.mark.parametrize("query", ["", "lon_deg=181&lat_deg=1", "lon_deg=nan&lat_deg=1"])
async def test_nearest__no_place_on_earth__is_422(http, query):
    answer = await http.get(f"/drivers/nearest?{query}", headers=STAFF)
    problem_of(answer, 422, "unusable-request")


# Around it


async def test_wrong_method__of_a_path_with_several__allow_lists_them_all(http):
    answer = await http.patch("/orders", headers=STAFF)
    problem_of(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, POST"


async def test_every_route__database_unavailable__is_503_with_retry_after(http, store):
    store.away = True
    for path in (f"/track/{ORDER_ID}", "/orders", "/drivers/positions"):
        answer = await http.get(path, headers=STAFF)
        problem_of(answer, 503, "store-unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    assert (await http.get("/readyz")).status_code == 503
    assert (await http.get("/healthz")).status_code == 200


async def test_every_answer__carries_security_headers(http):
    for path in ("/fleet", f"/track/{ORDER_ID}", "/nowhere", f"/tiles/{BUNDLED_CITY}.pmtiles"):
        headers = (await http.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


async def test_tiles__a_range__is_206_and_the_archive(http):
    answer = await http.get(f"/tiles/{BUNDLED_CITY}.pmtiles", headers={"Range": "bytes=0-6"})
    assert (answer.status_code, answer.content) == (206, b"PMTiles")


async def test_openapi__document__is_3_1_and_every_reference_resolves(http):
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    new = document["paths"]["/orders"]["post"]
    assert new["requestBody"]["content"]["application/json"]["examples"]
    assert {"401", "403", "404", "413", "415", "422", "503"} <= set(new["responses"])
    schemas = document["components"]["schemas"]
    references = set(_references(document))
    assert references
    assert {name for name in references if name not in schemas} == set()


async def test_docs__every_operation__is_on_the_page_without_scripts(http):
    document = (await http.get("/openapi.json")).json()
    page = await http.get("/docs")
    assert page.status_code == 200
    assert "<script" not in page.text
    assert all(f"<code>{path}</code>" in page.text for path in document["paths"])
    assert (await http.get("/docs.css")).headers["content-type"].startswith("text/css")


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"].rpartition("/")[2]] if "$ref" in value else []
        return own + [name for inner in value.values() for name in _references(inner)]
    if isinstance(value, list):
        return [name for inner in value for name in _references(inner)]
    return []


async def test_cities__service_areas_and_folders__are_listed_with_their_maps(http):
    answer = await http.get("/cities")
    assert answer.status_code == 200
    cities = {one["name"]: one for one in answer.json()["cities"]}
    assert set(cities) == {BUNDLED_CITY, "suva"}
    assert cities[BUNDLED_CITY]["map_url"] == f"/tiles/{BUNDLED_CITY}.pmtiles"
    assert cities[BUNDLED_CITY]["attribution"] == "© OpenStreetMap contributors"
    # an area that staff drew across ±180° has no map
    assert cities["suva"]["map_url"] is None
    assert cities["suva"]["bounds"] == [178.3, -18.3, -179.9, -18.0]
    assert cities["suva"]["centre"] == pytest.approx([179.2, -18.15])


async def test_cities__without_the_database__are_those_with_a_folder(http, store):
    store.away = True
    cities = (await http.get("/cities")).json()["cities"]
    assert [one["name"] for one in cities] == [BUNDLED_CITY]


@pytest.mark.parametrize("name", ["atlantis", "..%2Fsuva", "%00"])
async def test_tiles__of_no_city__are_404(http, name):
    assert (await http.get(f"/tiles/{name}.pmtiles")).status_code == 404
