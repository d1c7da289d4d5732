"""Offers, details and failures of orders. The seam is the store."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from tests.unit.tracking_api.memory_store import NEW_ORDER, ORDER_ID, STAFF
from tests.unit.tracking_api.test_routes import problem_of
from tracking_api.orders.search import DueRange

DETAILS = {
    "external_id": "shop-1042",
    "customer_phone": "+39 055 123456",
    "customer_language": "it-IT",
    "contact_rule": "text",
    "address": "Via dei Servi 12",
    "door_note": "Ring.",
    "items": "2 x margherita",
    "ready_at": "2026-11-29T19:10:00Z",
    "scheduled_for": "2026-11-29T19:00:00+01:00",
    "promised_from": "2026-11-29T19:30:00Z",
    "promised_to": "2026-11-29T19:45:00Z",
    "pin": "1234",
}
PICKUP = {"name": "Bookshop", "lon_deg": 11.25, "lat_deg": 43.77}


async def test_offer__by_a_dispatcher__is_201_with_its_time_limit(http, store):
    path = f"/orders/{ORDER_ID}/offers"
    answer = await http.post(path, json={"driver_id": "d2"}, headers=STAFF)
    assert (answer.status_code, answer.json()) == (
        201,
        {
            "order_id": str(ORDER_ID),
            "driver_id": "d2",
            "offered_at": "2026-01-01T12:00:00.000Z",
            "expires_at": "2026-01-01T12:00:45.000Z",
            "ended_at": None,
            "outcome": None,
        },
    )
    assert store.actor_ids == ["anna"]
    assert (await http.post(path, headers=STAFF)).json()["driver_id"] == "d1"
    problem_of(await http.post(f"/orders/{uuid4()}/offers", headers=STAFF), 409, "offer-open")


@pytest.mark.parametrize("token", ["tok-customer", "tok-d1", "tok-viewer"])
async def test_offer__by_others__is_403(http, token):
    headers = {"Authorization": f"Bearer {token}"}
    problem_of(await http.post(f"/orders/{ORDER_ID}/offers", headers=headers), 403, "forbidden")


async def test_offers_and_unassigned__to_staff__are_lists(http):
    [offer] = (await http.get(f"/orders/{ORDER_ID}/offers", headers=STAFF)).json()["offers"]
    assert offer["outcome"] == "expired"
    [order] = (await http.get("/orders/unassigned", headers=STAFF)).json()["orders"]
    assert (order["order_id"], order["offered_count"]) == (str(ORDER_ID), 2)


async def test_create_order__with_details__reaches_the_store_with_instants_as_text(http, store):
    answer = await http.post("/orders", json=NEW_ORDER | DETAILS, headers=STAFF)
    assert answer.status_code == 201, answer.text
    [created] = store.created
    assert created["details"] == DETAILS
    assert (created["restaurant_id"], created["pickup"]) == (1, None)


async def test_create_order__with_a_pickup__has_no_restaurant(http, store):
    body = {"destination": NEW_ORDER["destination"], "pickup": PICKUP}
    assert (await http.post("/orders", json=body, headers=STAFF)).status_code == 201
    [created] = store.created
    assert (created["restaurant_id"], created["pickup"], created["details"]) == (None, PICKUP, {})


@pytest.mark.parametrize(
    "members",
    [
        {"pickup": PICKUP},
        {"restaurant_id": None},
        {"promised_from": "2026-11-29T20:00:00Z", "promised_to": "2026-11-29T19:00:00Z"},
        {"ready_at": "2026-11-29T19:10:00"},
        {"contact_rule": "shout"},
        {"customer_phone": "call me"},
        {"customer_language": "italiano!"},
        {"pin": "12"},
        {"address": ""},
        {"door_note": "x" * 2001},
    ],
)
async def test_create_order__with_bad_details__is_422(http, store, members):
    answer = await http.post("/orders", json=NEW_ORDER | members, headers=STAFF)
    problem_of(answer, 422, "unusable-request")
    assert store.created == []


async def test_list_orders__with_a_text__passes_it_on(http, store):
    for address in ("/orders?q=rossi", "/orders?q=%20", "/orders"):
        assert (await http.get(address, headers=STAFF)).status_code == 200
    assert store.searched == [("rossi", None), (None, None), (None, None)]
    problem_of(await http.get("/orders?q=%00", headers=STAFF), 422, "unusable-request")


async def test_list_orders__due_in_a_range__passes_it_on(http, store):
    noon, one = "2026-11-29T12:00:00Z", "2026-11-29T13:00:00Z"
    from_at, to_at = datetime.fromisoformat(noon), datetime.fromisoformat(one)
    for query in (f"due_from={noon}", f"due_to={one}", f"due_from={noon}&due_to={one}"):
        assert (await http.get(f"/orders?{query}", headers=STAFF)).status_code == 200
    week = timedelta(days=7)
    ranges = [
        DueRange(from_at, from_at + week),
        DueRange(to_at - week, to_at),
        DueRange(from_at, to_at),
    ]
    assert store.searched == [(None, due) for due in ranges]
    for bad in (
        f"due_from={noon}&due_to={noon}",
        f"due_from={one}&due_to={noon}",
        "due_from=2026-10-01T12:00:00Z&due_to=2026-10-08T12:00:01Z",
        "due_to=12:00",
    ):
        answer = await http.get(f"/orders?{bad}", headers=STAFF)
        problem_of(answer, 422, "unusable-request")


async def test_fail__with_a_body__needs_a_reason(http, store):
    path = f"/orders/{ORDER_ID}/fail"
    assert (await http.post(path, json={"reason": "damaged"}, headers=STAFF)).status_code == 200
    assert (await http.post(path, headers=STAFF)).status_code == 200
    for body in ({}, {"note": "x"}, {"reason": "bored"}):
        problem_of(await http.post(path, json=body, headers=STAFF), 422, "unusable-request")
    assert store.failures == [("damaged", None, None), (None, None, None)]


async def test_policy__with_automatic_offers__is_added(http):
    values = {"name": "x", "auto_offer": True, "offer_s": 30}
    assert (await http.post("/policies", json=values, headers=STAFF)).status_code == 201
    for bad in ({"offer_s": 0}, {"offer_s": 4000}, {"auto_offer": 1}):
        answer = await http.post("/policies", json={"name": "x", **bad}, headers=STAFF)
        problem_of(answer, 422, "unusable-request")
