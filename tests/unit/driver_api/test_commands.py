"""What a driver commands and reads. The seam is `driver_api.queries.Store`."""

from __future__ import annotations

from uuid import uuid4

from tests.unit.driver_api.memory_store import ORDER_ID, problem_of


async def test_service_token__commands__are_403(http, store):
    headers = {"Authorization": "Bearer tok-service"}
    problem_of(await http.post("/drivers/d1/on-duty", headers=headers), 403, "forbidden")


async def test_commands__each_route__names_its_command(http, store):
    answer = await http.post("/drivers/d1/on-duty", headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.json()["duty"]) == (200, "on_duty")
    for path in ("decline", "picked-up", "delivered", "failed"):
        answer = await http.post(f"/drivers/d1/orders/{ORDER_ID}/{path}")
        assert answer.status_code == 200
        assert "customer_name" not in answer.json()
    assert store.commands == [
        ("d1", "on_duty", "k1"),
        ("d1", "decline", None),
        ("d1", "pick_up", None),
        ("d1", "deliver", None),
        ("d1", "fail", None),
    ]


async def test_on_break__with_an_order__is_409_with_what_is_allowed(http):
    document = problem_of(await http.post("/drivers/d1/on-break"), 409, "illegal-transition")
    assert (document["current_state"], document["allowed"]) == ("to_customer", ["off_duty"])


async def test_commands__staff_token__is_403(http, store):
    headers = {"Authorization": "Bearer tok-staff"}
    problem_of(await http.post("/drivers/d1/on-duty", headers=headers), 403, "forbidden")
    problem_of(await http.get("/drivers/d1", headers=headers), 403, "forbidden")
    assert store.commands == []


async def test_get_driver__own_token__has_the_restaurant_and_the_destination(http):
    body = (await http.get("/drivers/d1")).json()
    assert (body["duty"], body["state"]) == ("on_duty", "to_restaurant")
    place = {"lon_deg": 11.25, "lat_deg": 43.77, "name": "Da Mario"}
    assert body["order"]["restaurant"] == {**place, "address": "Piazza 1", "phone": None}
    assert body["order"]["customer"]["note"] == "Ring"
    [offer] = body["offers"]
    assert offer == {
        "order_id": str(ORDER_ID),
        "restaurant": place,
        "pickup_distance_m": 812.0,
        "offered_at": "2026-01-01T12:00:00.000Z",
        "expires_at": "2026-01-01T12:00:00.000Z",
    }
    assert body["failure_reasons"][0] == "customer_absent"


async def test_offers__accept_and_decline__have_their_keys_and_their_refusals(http, store):
    offer = f"/drivers/d1/offers/{ORDER_ID}"
    accepted = await http.post(f"{offer}/accept", headers={"Idempotency-Key": "k1"})
    assert (accepted.status_code, accepted.json()["driver_id"]) == (200, "d1")
    declined = await http.post(f"{offer}/decline", headers={"Idempotency-Key": "k2"})
    assert declined.json() == {
        "order_id": str(ORDER_ID),
        "outcome": "declined",
        "ended_at": "2026-01-01T12:00:00.000Z",
    }
    assert store.commands == [("d1", "accept", "k1"), ("d1", "decline_offer", "k2")]
    late = problem_of(await http.post(f"/drivers/d1/offers/{uuid4()}/decline"), 409, "offer-closed")
    assert late["detail"] == "this offer has expired"
    other = {"Authorization": "Bearer tok-d2"}
    problem_of(await http.post(f"{offer}/accept", headers=other), 403, "forbidden")


async def test_failed__with_a_body__needs_a_reason_of_the_list(http, store):
    path = f"/drivers/d1/orders/{ORDER_ID}/failed"
    answer = await http.post(path, json={"reason": "customer_absent", "note": "Rang twice."})
    assert answer.status_code == 200
    for body in ({}, {"note": "x"}, {"reason": "bored"}, {"reason": "other", "note": "x" * 501}):
        problem_of(await http.post(path, json=body), 422, "unusable-request")
    assert store.failures == [("customer_absent", "Rang twice.", None)]


async def test_failed__with_a_next_step__must_be_one_of_the_list(http, store):
    path = f"/drivers/d1/orders/{ORDER_ID}/failed"
    answer = await http.post(path, json={"reason": "refused", "next_step": "return"})
    assert answer.status_code == 200
    bad = {"reason": "refused", "next_step": "hope"}
    problem_of(await http.post(path, json=bad), 422, "unusable-request")
    assert store.failures == [("refused", None, "return")]
